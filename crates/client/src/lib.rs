//! An NBD client: RemoteDisk is a Disk, with a blocking face over it.

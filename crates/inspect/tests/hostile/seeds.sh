# Small disks of all kinds, in a directory for each: what fuzzing begins with.
set -eu
PATH=$PATH:/usr/sbin:/sbin
mkdir files partitions ext fat iso
mkdir -p files/etc files/a/b
echo 'NAME="Seed"' > files/a/os-release
ln -s ../a/os-release files/etc/os-release
ln -s /a/b/../b files/LINK
ln -s "$(printf 'x%.0s' $(seq 100))" files/long
head -c 3000 /dev/zero | tr '\0' 'x' > files/a/data
: > files/a/b/empty

ext() { # NAME OPTIONS...
    name=$1; shift
    mke2fs -q -F -U 12345678-1234-1234-1234-123456789abc -E hash_seed=12345678-1234-1234-1234-123456789abc -d files "$@" "ext/$name"
}
for name in ext2 extents inline groups journal; do truncate -s 128K "ext/$name"; done
truncate -s 1M ext/groups; truncate -s 2100K ext/journal
ext ext2 -t ext2 -b 1024 -N 32 -I 128 -m 0 -O ^resize_inode
ext extents -t ext4 -b 1024 -N 32 -m 0 -O ^resize_inode,^has_journal
ext inline -t ext4 -b 1024 -N 32 -m 0 -O ^resize_inode,^has_journal,inline_data
ext groups -t ext4 -b 1024 -N 64 -m 0 -g 256 -O ^resize_inode,^has_journal,meta_bg,64bit
ext journal -t ext4 -b 1024 -N 32 -m 0 -J size=1 -O ^resize_inode
block=$(debugfs -R 'blocks /a/data' ext/journal 2>/dev/null | cut -d' ' -f1)
printf 'jo\njw -b %s files/a/data\njc\n' "$block" > commands
debugfs -w -f commands ext/journal >/dev/null 2>&1

fat() { # NAME SIZE OPTIONS...
    name=$1 size=$2; shift 2
    truncate -s "$size" "fat/$name"
    mkfs.vfat -n SEED -i 1234abcd "$@" "fat/$name" >/dev/null
    MTOOLS_SKIP_CHECK=1 mcopy -s -i "fat/$name" files/a ::
    MTOOLS_SKIP_CHECK=1 mcopy -i "fat/$name" files/a/data '::A rather long name, täglich.text'
}
fat fat12 64K -F 12 -s 1 -r 16 -f 1
fat fat16 2600K -F 16 -s 1 -r 16 -f 1
# mtools take so few clusters for FAT12. A file of one cluster behind the root directory, by hand.
truncate -s 128K fat/fat32
mkfs.vfat -n SEED -i 1234abcd -F 32 -s 1 -R 16 -f 1 fat/fat32 >/dev/null
put() { printf "$2" | dd of=fat/fat32 bs=1 seek="$1" conv=notrunc status=none; }
put $((16 * 512 + 12)) '\377\377\377\017'
put $((18 * 512 + 32)) 'HELLO   TXT\040'
put $((18 * 512 + 32 + 26)) '\003\0\005\0\0\0'
put $((19 * 512)) 'hello'

genisoimage -quiet -R -o iso/rock-ridge files
rm files/LINK files/long files/etc/os-release
genisoimage -quiet -J -o iso/joliet files
genisoimage -quiet -o iso/plain files

table() { # NAME SIZE, and commands of sfdisk on standard input
    truncate -s "$2" "partitions/$1"
    sfdisk -q "partitions/$1" >/dev/null 2>&1
}
table mbr 400K <<END
label: dos
label-id: 0x12345678
start=8, size=200, type=c
start=208, size=300, type=5
start=216, size=64, type=83
start=300, size=64, type=83
END
table gpt 400K <<END
label: gpt
label-id: 12345678-1234-1234-1234-123456789ABC
first-lba: 34
start=40, size=200, name=one, uuid=12345678-1234-1234-1234-123456789AB1
start=300, size=64, name=two, uuid=12345678-1234-1234-1234-123456789AB2
END
dd if=fat/fat12 of=partitions/mbr bs=512 seek=8 conv=notrunc status=none
dd if=fat/fat12 of=partitions/gpt bs=512 seek=40 conv=notrunc status=none
cp partitions/gpt partitions/second-copy
dd if=/dev/zero of=partitions/second-copy bs=512 seek=1 count=1 conv=notrunc status=none

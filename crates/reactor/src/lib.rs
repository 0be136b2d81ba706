//! A small event loop per thread: block_on, timers, drivers, a pool for blocking work.

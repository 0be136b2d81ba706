//! Sockets: listening, connecting, sending and receiving.

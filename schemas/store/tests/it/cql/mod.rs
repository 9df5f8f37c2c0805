//! What only the store over CQL has to do.

mod crash;
mod erase;
mod lists;
mod migrate;
mod offline;
mod retention;
mod tls;
mod writers;

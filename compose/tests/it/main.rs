//! The binary as its users meet it: started as a process, on real files, with the
//! real model, over HTTP and on the command line.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod backup;
mod dead;
mod doors;
mod erase;
mod killed;
mod logs;
mod path;
mod start;
mod support;
mod tools;

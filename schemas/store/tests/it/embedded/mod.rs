//! What only the store inside the process has: its folder, and its crashes.

mod backup;
mod damage;
mod erase;
mod folder;
mod kill;
mod retention;

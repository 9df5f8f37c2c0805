//! What only the embedded broker has: its folder, its limits, its ways to stop.

mod disk;
mod kill;
mod limits;
mod restart;
mod sasl;
mod start;

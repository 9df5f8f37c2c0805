//! SQL over a real Delta table and the tail, driven from outside.

mod broker;
mod consistency;
mod door;
mod errors;
mod limits;
mod refusals;
mod support;
mod tenants;

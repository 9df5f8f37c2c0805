//! What any broker of the protocol must do. Runs unchanged against Apache Kafka.

mod admin;
mod consume;
mod groups;
mod kcat;
mod offsets;
mod produce;
mod protocol;

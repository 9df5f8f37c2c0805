//! The records as others see them: bytes of the first version, JSON, columns.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod bytes;
mod columns;
mod examples;
mod json;
mod random;

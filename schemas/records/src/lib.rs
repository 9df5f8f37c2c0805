//! What is said: the records that travel between Weir's stages.
//!
//! ```text
//! weir.messages  Message     producer's words, accepted
//! weir.verdicts  Judged      the same message, its verdict, its source offset
//! weir.dead      DeadLetter  what could not be processed, with stage and reason;
//!                            and behind it a note of what was done with it
//! weir.erasures  Erasure     what is to be forgotten
//! ```
//!
//! On the wire they are Protobuf (`proto/weir.proto`), in Rust the plain types of
//! [`message`] and [`verdict`], in SQL the columns of [`columns`]. Stages meet only
//! here: no service crate knows another. Serialised with serde, the types have
//! the shape that users see in JSON.

pub mod codec;
pub mod columns;
pub mod erasure;
pub mod message;
pub mod topic;
pub mod verdict;

pub use codec::{
    DecodeError, dead_letter, erasure as decode_erasure, judged, judged_message,
    message as decode_message, published_again,
};
pub use erasure::{Erasure, Erasures, Target};
pub use message::{DeadLetter, Judged, Message, Resolution, Settlement, Source};
pub use verdict::{Action, Attribute, Reason, Scores, Sentiment, SentimentLabel, Span, Verdict};

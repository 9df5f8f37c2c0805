//! normalise → score → decide: what makes a verdict of a message.
//!
//! ```text
//! weir.messages ─ stage ─▶ weir.verdicts      the role `process`
//! POST /v1/score ─ router ─┐
//! weir score ──────────────┼─ Judge ─ Normalised → Scored → Decided
//! weir.dead ─ dead ────────┘              what could not be judged, listed and replayed
//! ```
//!
//! [`Judge`] is one sentence in three types: a [`Normalised`] text is scored into a
//! [`Scored`] one, a scored one is decided into a [`Decided`] one; nothing can be
//! decided that was not scored. The same texts, model and thresholds give the same
//! verdict, save for its time.
//!
//! [`stage`] says how each message is judged once and none is lost.

pub mod dead;
mod decide;
pub mod door;
mod judge;
mod language;
mod metrics;
mod normalise;
mod score;
pub mod stage;
mod thresholds;

pub use decide::Decided;
pub use door::router;
pub use judge::{Judge, JudgeError};
pub use normalise::Normalised;
pub use score::Scored;
pub use stage::stage;
pub use thresholds::{Levels, ThresholdError, Thresholds};

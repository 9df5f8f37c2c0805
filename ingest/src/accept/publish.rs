//! The way to the broker and its answer.

use std::future::Future as _;

use weir_auth::door::{Code, Problem};
use weir_bus::{Delivery, NotDelivered, Refused};
use weir_records::Source;

use super::RETRY_AFTER;
use crate::recent::Claims;

type Answer = Result<Source, NotDelivered>;

/// Records that are on their way. When the request ends before the broker answers (the
/// client left, or the time was up), the ids stay claimed until it does: a retry joins
/// the first send instead of publishing again.
pub(super) struct Publication(Option<(Delivery, Claims)>);

impl Publication {
    pub(super) fn new(delivery: Delivery, claims: Claims) -> Self {
        Self(Some((delivery, claims)))
    }

    /// The answers, in the order of the records.
    pub(super) async fn finish(mut self) -> Vec<Answer> {
        let answers = std::future::poll_fn(|context| match &mut self.0 {
            Some((delivery, _)) => std::pin::Pin::new(delivery).poll(context),
            None => std::task::Poll::Ready(Vec::new()),
        })
        .await;
        if let Some((_, claims)) = self.0.take() {
            claims.settle(answers.iter().map(Result::is_ok));
        }
        answers
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let Some((delivery, claims)) = self.0.take() else {
            return;
        };
        // Bounded by the producer's queue and its delivery timeout. Without a runtime the
        // process is ending, and the ids with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let answers = delivery.await;
                claims.settle(answers.iter().map(Result::is_ok));
            });
        }
    }
}

/// Why the producer took nothing.
pub(super) fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Full => Problem::new(Code::Overloaded, "the queue to the broker is full")
            .retry_after(RETRY_AFTER),
        // The bounds of the configuration keep every record below it.
        Refused::TooLarge { index } => Problem::new(
            Code::TooLarge,
            format!("message {index} is larger than the broker takes"),
        ),
    }
}

/// Why the broker did not take a record.
pub(super) fn explain(error: NotDelivered) -> Problem {
    if error.code == "too_large" {
        return Problem::new(
            Code::TooLarge,
            "the message is larger than the broker takes",
        );
    }
    no_answer()
}

/// The record may be in the log or not; sending it again with the same id is safe.
pub(super) fn no_answer() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the broker has not confirmed the message; send it again, with the same id",
    )
    .retry_after(RETRY_AFTER)
}

//! What the caller is told: one result for each message, in order.
//!
//! The usual answer, in which everything is new and was accepted, is written by hand into one
//! buffer: ids need no escaping, their characters are bounded by the check.

use std::io::Write as _;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use weir_auth::door::{Code, MEDIA_TYPE, Problem};
use weir_records::Verdict;

use super::Outcome;
use crate::door::schema::Status;

/// A result without a problem or a verdict, in bytes.
const RESULT_BYTES: usize = 72;

/// The answer for a single message.
pub(crate) fn single(outcome: Outcome) -> Response {
    let mut body = Vec::with_capacity(RESULT_BYTES);
    match outcome {
        Outcome::Accepted { id } => unjudged(&mut body, &id, "accepted"),
        Outcome::Pending { id } => unjudged(&mut body, &id, "pending"),
        Outcome::Judged { id, verdict } => {
            judged(&mut body, &id, &verdict);
            return json(StatusCode::OK, body);
        }
        Outcome::Failed { problem, .. } | Outcome::Rejected { problem, .. } => {
            return problem.into_response();
        }
    }
    json(StatusCode::ACCEPTED, body)
}

/// The answer for a batch: 202 when at least one message was accepted, now or before; else, as a problem
/// that also has the results, 503 when at least one was good, or what is wrong with the
/// first.
pub(crate) fn batch(outcomes: Vec<Outcome>) -> Response {
    let mut body = Vec::with_capacity(outcomes.len() * RESULT_BYTES + 16);
    body.extend_from_slice(br#"{"results":["#);
    let start = body.len() - 1;
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match outcome {
            Outcome::Accepted { id } => unjudged(&mut body, id, "accepted"),
            Outcome::Pending { id } => unjudged(&mut body, id, "pending"),
            Outcome::Judged { id, verdict } => judged(&mut body, id, verdict),
            Outcome::Failed { id, problem } => {
                refused(&mut body, "failed", index, Some(id), problem)
            }
            Outcome::Rejected { id, problem } => {
                refused(&mut body, "rejected", index, id.as_deref(), problem)
            }
        }
    }
    body.push(b']');
    let end = body.len();
    body.push(b'}');
    match worst(outcomes) {
        None => json(StatusCode::ACCEPTED, body),
        Some(problem) => with_results(&problem, &body[start..end]),
    }
}

/// The problem of the whole, where nothing was accepted.
fn worst(outcomes: Vec<Outcome>) -> Option<Problem> {
    let mut first = None;
    let mut failed = None;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Accepted { .. } | Outcome::Pending { .. } | Outcome::Judged { .. } => {
                return None;
            }
            Outcome::Failed { problem, .. } => {
                failed.get_or_insert(problem);
            }
            Outcome::Rejected { problem, .. } => {
                first.get_or_insert((index, problem));
            }
        }
    }
    if let Some(problem) = failed {
        return Some(*problem);
    }
    let (index, problem) = first?;
    let field = problem
        .field_name()
        .map(|field| format!("[{index}].{field}"));
    Some(match field {
        Some(field) => problem.field(field),
        None => *problem,
    })
}

fn unjudged(body: &mut Vec<u8>, id: &str, status: &'static str) {
    body.extend_from_slice(br#"{"id":""#);
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(br#"","status":""#);
    body.extend_from_slice(status.as_bytes());
    body.extend_from_slice(br#""}"#);
}

fn judged(body: &mut Vec<u8>, id: &str, verdict: &Verdict) {
    #[derive(Serialize)]
    struct Judged<'a> {
        id: &'a str,
        status: Status,
        verdict: &'a Verdict,
    }

    let result = Judged {
        id,
        status: Status::Judged,
        verdict,
    };
    // Strings and numbers into memory: neither can fail.
    let _ = serde_json::to_writer(body.by_ref(), &result);
}

fn refused(
    body: &mut Vec<u8>,
    status: &'static str,
    index: usize,
    id: Option<&str>,
    problem: &Problem,
) {
    #[derive(Serialize)]
    struct Refused<'a> {
        index: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        status: &'static str,
        problem: Short<'a>,
    }

    #[derive(Serialize)]
    struct Short<'a> {
        code: Code,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        detail: &'a str,
    }

    let result = Refused {
        index,
        id,
        status,
        problem: Short {
            code: problem.code(),
            field: problem.field_name(),
            detail: problem.detail(),
        },
    };
    // Strings and numbers into memory: neither can fail.
    let _ = serde_json::to_writer(body.by_ref(), &result);
}

/// A problem document with one member more.
fn with_results(problem: &Problem, results: &[u8]) -> Response {
    #[derive(Serialize)]
    struct WithResults<'a> {
        #[serde(flatten)]
        problem: &'a Problem,
        results: &'a RawValue,
    }

    let plain = problem.clone().into_response();
    let Ok(results) = serde_json::from_slice(results) else {
        return plain;
    };
    let Ok(body) = serde_json::to_vec(&WithResults { problem, results }) else {
        return plain;
    };
    // Its status and its headers, Retry-After among them; only the length is another.
    let (mut parts, _) = plain.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Response::from_parts(parts, body.into())
}

/// An answer in JSON that is written already.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn answer(outcomes: Vec<Outcome>) -> (u16, Option<String>, serde_json::Value) {
        let response = batch(outcomes);
        let status = response.status().as_u16();
        let retry = response
            .headers()
            .get(header::RETRY_AFTER)
            .map(|v| v.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry, serde_json::from_slice(&body).unwrap())
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { id: "a".into() }
    }

    fn failed() -> Outcome {
        Outcome::failed("b".into(), super::super::publish::no_answer())
    }

    fn rejected() -> Outcome {
        let problem = Problem::new(Code::Conflict, "an \"other\" text").field("id");
        Outcome::Rejected {
            id: None,
            problem: Box::new(problem),
        }
    }

    #[tokio::test]
    async fn what_was_accepted_before_makes_a_202_too() {
        let pending = Outcome::Pending { id: "p".into() };
        let (status, _, body) = answer(vec![rejected(), pending]).await;
        let expected = serde_json::json!({"id": "p", "status": "pending"});
        assert_eq!((status, &body["results"][1]), (202, &expected));
    }

    #[tokio::test]
    async fn one_accepted_message_makes_a_202() {
        let (status, retry, body) = answer(vec![rejected(), accepted(), failed()]).await;
        assert_eq!((status, retry), (202, None));
        let results = body["results"].as_array().unwrap();
        assert_eq!(
            results[1],
            serde_json::json!({"id": "a", "status": "accepted"})
        );
        assert_eq!(
            results[0],
            serde_json::json!({"index": 0, "status": "rejected",
                "problem": {"code": "conflict", "field": "id", "detail": "an \"other\" text"}})
        );
        assert_eq!(
            (&results[2]["id"], &results[2]["status"]),
            (&"b".into(), &"failed".into())
        );
    }

    #[tokio::test]
    async fn without_one_a_failure_that_may_pass_goes_before_a_fault_that_stays() {
        let (status, retry, body) = answer(vec![rejected(), failed()]).await;
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
        assert_eq!(
            (&body["code"], body["results"].as_array().unwrap().len()),
            (&"unavailable".into(), 2)
        );
        let (status, retry, body) = answer(vec![rejected(), rejected()]).await;
        assert_eq!((status, retry), (409, None));
        assert_eq!(
            (&body["code"], &body["field"]),
            (&"conflict".into(), &"[0].id".into())
        );
    }
}

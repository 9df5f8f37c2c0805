//! The requests, one module for each family; here they find their answers.

pub(crate) mod admin;
pub(crate) mod configs;
pub(crate) mod discovery;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod offsets;
pub(crate) mod positions;
pub(crate) mod produce;

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::sync::OwnedSemaphorePermit;

use crate::net::connection::Closing;
use crate::net::{Peer, Shared};
use crate::wire::{EncodeError, Request, encode};

/// The only node there is.
pub(crate) const NODE: i32 = 1;

/// Appends the answer to `request`.
pub(crate) fn put<T: Encodable + HeaderVersion>(
    out: &mut Vec<u8>,
    request: &Request,
    answer: &T,
) -> Result<(), EncodeError> {
    encode(
        out,
        request.correlation,
        request.version.unwrap_or_default(),
        answer,
    )
}

/// Error code of a result; 0 for none.
pub(crate) fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

pub(crate) fn text(words: impl Into<String>) -> StrBytes {
    StrBytes::from_string(words.into())
}

/// Runs what blocks on the disk where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, ResponseError> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || work(&shared))
        .await
        .map_err(|error| {
            tracing::error!(%error, "a request could not be worked on");
            ResponseError::UnknownServerError
        })
}

/// Answers any request but Produce and SASL.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: Request,
    permit: OwnedSemaphorePermit,
    mut out: Vec<u8>,
) -> Result<Vec<u8>, Closing> {
    let version = request.version.unwrap_or_default();
    macro_rules! reply {
        ($answer:expr) => {{
            let answer = $answer;
            put(&mut out, &request, &answer)?;
        }};
    }
    macro_rules! decode {
        () => {{
            let decoded = request.decode()?;
            drop(permit);
            decoded
        }};
    }
    match request.api.key {
        ApiKey::Fetch => {
            let decoded = decode!();
            let wanted = fetch::Wanted {
                request: decoded,
                version,
                correlation: request.correlation,
            };
            return Ok(fetch::fetch(shared, peer, wanted, out).await);
        }
        ApiKey::ApiVersions => reply!(discovery::api_versions(request.version)),
        ApiKey::Metadata => reply!(discovery::metadata(shared, peer, &decode!(), version)),
        ApiKey::FindCoordinator => reply!(discovery::find_coordinator(peer, &decode!(), version)),
        ApiKey::InitProducerId => reply!(discovery::init_producer_id(shared, &decode!()).await),
        ApiKey::ListOffsets => reply!(positions::list_offsets(shared, decode!(), version).await),
        ApiKey::DeleteRecords => reply!(positions::delete_records(shared, decode!()).await),
        ApiKey::CreateTopics => reply!(admin::create_topics(shared, decode!()).await),
        ApiKey::DeleteTopics => reply!(admin::delete_topics(shared, decode!(), version).await),
        ApiKey::CreatePartitions => reply!(admin::create_partitions(shared, decode!()).await),
        ApiKey::DescribeConfigs => reply!(configs::describe(shared, &decode!())),
        ApiKey::AlterConfigs => reply!(configs::alter(shared, decode!()).await),
        ApiKey::IncrementalAlterConfigs => {
            reply!(configs::alter_incrementally(shared, decode!()).await)
        }
        ApiKey::JoinGroup => {
            let client_id = request.client_id.clone();
            reply!(groups::join(shared, peer, decode!(), client_id, version).await);
        }
        ApiKey::SyncGroup => reply!(groups::sync(shared, decode!()).await),
        ApiKey::Heartbeat => reply!(groups::heartbeat(shared, &decode!())),
        ApiKey::LeaveGroup => reply!(groups::leave(shared, &decode!(), version)),
        ApiKey::ListGroups => reply!(groups::list(shared, &decode!())),
        ApiKey::DescribeGroups => reply!(groups::describe(shared, &decode!(), version)),
        ApiKey::DeleteGroups => reply!(groups::delete(shared, &decode!()).await),
        ApiKey::OffsetCommit => reply!(offsets::commit(shared, &decode!()).await),
        ApiKey::OffsetFetch => reply!(offsets::fetch(shared, &decode!(), version)),
        ApiKey::OffsetDelete => reply!(offsets::delete(shared, &decode!()).await),
        _ => return Err(crate::wire::Malformed::UnknownApi(request.api.key as i16).into()),
    }
    Ok(out)
}

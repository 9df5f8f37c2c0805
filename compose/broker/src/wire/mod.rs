//! Between frames and messages: which APIs and versions are spoken, the request header, and encoding.

pub(crate) mod shape;

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

/// One API, with the first and last version spoken.
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    pub(crate) name: &'static str,
    pub(crate) first: i16,
    pub(crate) last: i16,
}

const fn api(key: ApiKey, name: &'static str, first: i16, last: i16) -> Api {
    Api {
        key,
        name,
        first,
        last,
    }
}

/// Everything this broker answers. Fetch ends before topic ids, ListOffsets before tiered storage,
/// SASL begins where tokens travel in frames.
pub(crate) const APIS: &[Api] = &[
    api(ApiKey::Produce, "Produce", 3, 11),
    api(ApiKey::Fetch, "Fetch", 4, 11),
    api(ApiKey::ListOffsets, "ListOffsets", 1, 7),
    api(ApiKey::Metadata, "Metadata", 0, 12),
    api(ApiKey::OffsetCommit, "OffsetCommit", 2, 9),
    api(ApiKey::OffsetFetch, "OffsetFetch", 1, 9),
    api(ApiKey::FindCoordinator, "FindCoordinator", 0, 5),
    api(ApiKey::JoinGroup, "JoinGroup", 0, 9),
    api(ApiKey::Heartbeat, "Heartbeat", 0, 4),
    api(ApiKey::LeaveGroup, "LeaveGroup", 0, 5),
    api(ApiKey::SyncGroup, "SyncGroup", 0, 5),
    api(ApiKey::DescribeGroups, "DescribeGroups", 0, 6),
    api(ApiKey::ListGroups, "ListGroups", 0, 5),
    api(ApiKey::SaslHandshake, "SaslHandshake", 1, 1),
    api(ApiKey::ApiVersions, "ApiVersions", 0, 4),
    api(ApiKey::CreateTopics, "CreateTopics", 2, 7),
    api(ApiKey::DeleteTopics, "DeleteTopics", 1, 6),
    api(ApiKey::DeleteRecords, "DeleteRecords", 0, 2),
    api(ApiKey::InitProducerId, "InitProducerId", 0, 4),
    api(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4),
    api(ApiKey::AlterConfigs, "AlterConfigs", 0, 2),
    api(ApiKey::SaslAuthenticate, "SaslAuthenticate", 0, 2),
    api(ApiKey::CreatePartitions, "CreatePartitions", 0, 3),
    api(ApiKey::DeleteGroups, "DeleteGroups", 0, 2),
    api(
        ApiKey::IncrementalAlterConfigs,
        "IncrementalAlterConfigs",
        0,
        1,
    ),
    api(ApiKey::OffsetDelete, "OffsetDelete", 0, 0),
];

/// Why a frame can't be answered. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the frame is not a request")]
    Header,
    #[error("API {0} is not spoken here")]
    UnknownApi(i16),
    #[error("version {1} of API {0} is not spoken here")]
    UnsupportedVersion(i16, i16),
    #[error("the request doesn't have the shape of its API")]
    Body,
}

impl Malformed {
    /// For the metric: one of a small fixed set.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::UnknownApi(_) => "unknown_api",
            Self::UnsupportedVersion(..) => "unsupported_version",
            Self::Header | Self::Body => "malformed",
        }
    }
}

/// A request header, and the bytes of the request behind it.
pub(crate) struct Request {
    pub(crate) api: &'static Api,
    /// `None` for an ApiVersions request of a version that isn't spoken: it has an answer of its own.
    pub(crate) version: Option<i16>,
    pub(crate) correlation: i32,
    pub(crate) client_id: String,
    pub(crate) body: Bytes,
}

impl Request {
    /// Reads the header of a frame, and checks that the body can be decoded within bounds.
    pub(crate) fn parse(mut frame: Bytes) -> Result<Self, Malformed> {
        if frame.remaining() < 8 {
            return Err(Malformed::Header);
        }
        let (key, version, correlation) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
        let Some(api) = APIS.iter().find(|api| api.key as i16 == key) else {
            return Err(Malformed::UnknownApi(key));
        };
        if !(api.first..=api.last).contains(&version) {
            if api.key == ApiKey::ApiVersions {
                let client_id = String::new();
                return Ok(Self {
                    api,
                    version: None,
                    correlation,
                    client_id,
                    body: Bytes::new(),
                });
            }
            return Err(Malformed::UnsupportedVersion(key, version));
        }
        let mut rest = shape::Reader::new(&frame);
        let client_id = rest
            .header(api.key.request_header_version(version) >= 2)
            .ok_or(Malformed::Header)?;
        let consumed = frame.len() - rest.left();
        frame.advance(consumed);
        shape::check(api.key, version, &frame).ok_or(Malformed::Body)?;
        Ok(Self {
            api,
            version: Some(version),
            correlation,
            client_id,
            body: frame,
        })
    }

    /// Decodes the body. Only after [`Self::parse`], which bounds what the decoder allocates.
    pub(crate) fn decode<T: Decodable>(&self) -> Result<T, Malformed> {
        let mut body = self.body.clone();
        T::decode(&mut body, self.version.unwrap_or_default()).map_err(|_| Malformed::Body)
    }
}

/// Appends a whole answer to `out`: length, header, message.
pub(crate) fn encode<T: Encodable + HeaderVersion>(
    out: &mut Vec<u8>,
    correlation: i32,
    version: i16,
    message: &T,
) -> Result<(), EncodeError> {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header
        .encode(out, T::header_version(version))
        .map_err(|_| EncodeError)?;
    message.encode(out, version).map_err(|_| EncodeError)?;
    patch_length(out, begin);
    Ok(())
}

/// Fills in the length of the frame that begins at `begin`.
pub(crate) fn patch_length(out: &mut [u8], begin: usize) {
    let length = u32::try_from(out.len() - begin - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(begin..begin + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// A field that the version can't carry: a fault of this broker.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("an answer can't be encoded")]
pub(crate) struct EncodeError;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod samples;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

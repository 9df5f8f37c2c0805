//! The shapes agree with the encoder, and nothing that arrives can hurt.

use bytes::Bytes;
use proptest::prelude::*;

use super::samples::{frame, full};
use super::*;

#[test]
fn every_version_of_every_request_has_its_shape() {
    for api in APIS {
        for version in api.first..=api.last {
            let body = full(api.key, version);
            let request = Request::parse(frame(api, version, &body))
                .unwrap_or_else(|error| panic!("{} {version}: {error}", api.name));
            assert_eq!((request.correlation, request.client_id.as_str()), (7, "me"));
            // Not a byte less; what some clients send behind it is passed over.
            if !body.is_empty() {
                assert!(
                    shape::check(api.key, version, &body[..body.len() - 1]).is_none(),
                    "{} {version}",
                    api.name
                );
            }
            let mut more = body;
            more.push(0);
            let checked = shape::check(api.key, version, &more);
            assert_eq!(checked, Some(()), "{} {version}", api.name);
        }
    }
}

#[test]
fn what_is_not_spoken_is_said() {
    let unknown = [0, 99, 0, 0, 0, 0, 0, 1, 255, 255];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&unknown)).err(),
        Some(Malformed::UnknownApi(99))
    );
    let newer = [0, 1, 0, 99, 0, 0, 0, 1, 255, 255];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&newer)).err(),
        Some(Malformed::UnsupportedVersion(1, 99))
    );
    let versions = [0, 18, 0, 99, 0, 0, 0, 1];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&versions))
            .map(|request| request.version)
            .ok(),
        Some(None)
    );
}

#[test]
fn an_array_that_claims_billions_is_refused_before_it_is_decoded() {
    // Metadata version 1: an array of 2^31 - 1 topics in four bytes.
    assert!(shape::check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()).is_none());
    // As many as fit, but more than are allowed.
    let count = i32::try_from(shape::MOST_ELEMENTS + 1).unwrap();
    let mut many = count.to_be_bytes().to_vec();
    many.resize(4 + 2 * (shape::MOST_ELEMENTS + 1), 0);
    assert!(shape::check(ApiKey::DescribeGroups, 0, &many).is_none());
    let allowed = [&(count - 1).to_be_bytes()[..], &many[4..many.len() - 2]].concat();
    assert!(shape::check(ApiKey::DescribeGroups, 0, &allowed).is_some());
}

/// Decodes as the broker would.
fn decode(request: &Request) {
    macro_rules! decode {
        ($($name:ident),* $(,)?) => {
            match request.api.key {
                $(ApiKey::$name => drop(request.decode::<by_key::$name>()),)*
                other => panic!("{other:?} is not decoded"),
            }
        };
    }
    decode!(
        Produce,
        Fetch,
        ListOffsets,
        Metadata,
        OffsetCommit,
        OffsetFetch,
        FindCoordinator,
        JoinGroup,
        Heartbeat,
        LeaveGroup,
        SyncGroup,
        DescribeGroups,
        ListGroups,
        SaslHandshake,
        ApiVersions,
        CreateTopics,
        DeleteTopics,
        DeleteRecords,
        InitProducerId,
        DescribeConfigs,
        AlterConfigs,
        SaslAuthenticate,
        CreatePartitions,
        DeleteGroups,
        IncrementalAlterConfigs,
        OffsetDelete
    );
}

/// The request types under the names of their keys.
mod by_key {
    macro_rules! name {
        ($($key:ident = $request:ident),* $(,)?) => {
            $(pub(super) type $key = kafka_protocol::messages::$request;)*
        };
    }
    name!(
        Produce = ProduceRequest,
        Fetch = FetchRequest,
        ListOffsets = ListOffsetsRequest,
        Metadata = MetadataRequest,
        OffsetCommit = OffsetCommitRequest,
        OffsetFetch = OffsetFetchRequest,
        FindCoordinator = FindCoordinatorRequest,
        JoinGroup = JoinGroupRequest,
        Heartbeat = HeartbeatRequest,
        LeaveGroup = LeaveGroupRequest,
        SyncGroup = SyncGroupRequest,
        DescribeGroups = DescribeGroupsRequest,
        ListGroups = ListGroupsRequest,
        SaslHandshake = SaslHandshakeRequest,
        ApiVersions = ApiVersionsRequest,
        CreateTopics = CreateTopicsRequest,
        DeleteTopics = DeleteTopicsRequest,
        DeleteRecords = DeleteRecordsRequest,
        InitProducerId = InitProducerIdRequest,
        DescribeConfigs = DescribeConfigsRequest,
        AlterConfigs = AlterConfigsRequest,
        SaslAuthenticate = SaslAuthenticateRequest,
        CreatePartitions = CreatePartitionsRequest,
        DeleteGroups = DeleteGroupsRequest,
        IncrementalAlterConfigs = IncrementalAlterConfigsRequest,
        OffsetDelete = OffsetDeleteRequest,
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = Request::parse(Bytes::from(bytes)) {
            decode(&request);
        }
    }

    #[test]
    fn random_bodies_never_panic(
        api in 0..APIS.len(), version in 0_i16..14, body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(request) = Request::parse(frame(&APIS[api], version, &body)) {
            decode(&request);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        api in 0..APIS.len(), version in 0_i16..14, flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let api = &APIS[api];
        let version = version.clamp(api.first, api.last);
        let mut body = full(api.key, version);
        if !body.is_empty() {
            for (at, with) in flips {
                let at = at % body.len();
                body[at] = with;
            }
        }
        if let Ok(request) = Request::parse(frame(api, version, &body)) {
            decode(&request);
        }
    }

    #[test]
    fn random_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use crate::log::batch::{Demand, Header, check};
        let bytes = Bytes::from(bytes);
        if let Some(header) = Header::parse(&bytes) {
            let _ = crate::log::records::find(&header, &bytes, 0, |_| false);
        }
        let _ = check(bytes, Demand { max_bytes: 1_000, append_time: Some(1) });
    }
}

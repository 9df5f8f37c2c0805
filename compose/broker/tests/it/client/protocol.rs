//! Frames that no well-behaved client sends: they cost their own connection, and nothing else.

use kafka_protocol::messages::{ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest};

use crate::raw::{Raw, text};
use crate::server::Server;

fn header(api: i16, version: i16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&api.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&77_i32.to_be_bytes());
    frame.extend_from_slice(&3_i16.to_be_bytes());
    frame.extend_from_slice(b"raw");
    frame
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[test]
fn an_unknown_version_of_the_versions_request_is_answered_with_a_way_down() {
    let server = Server::start();
    let mut raw = Raw::connect(server.address());
    // Tagged fields of the header, two empty names, tagged fields of the body.
    raw.send_bytes(&framed(&[header(18, 77), vec![0, 1, 1, 0]].concat()));
    let answer = raw.receive::<ApiVersionsRequest>(0);
    assert_eq!(answer.error_code, 35, "UNSUPPORTED_VERSION");
    assert!(answer.api_keys.iter().any(|api| api.api_key == 18));
    let spoken = raw.call(
        &ApiVersionsRequest::default().with_client_software_name(text("raw")),
        0,
    );
    assert_eq!(spoken.error_code, 0);
    for (api, version) in [(0, 7), (1, 11), (3, 9), (11, 5), (22, 1)] {
        let known = spoken
            .api_keys
            .iter()
            .find(|one| one.api_key == api)
            .unwrap();
        assert!(
            (known.min_version..=known.max_version).contains(&version),
            "{api}"
        );
    }
}

#[test]
fn a_bad_frame_closes_its_own_connection_alone() {
    let server = Server::start();
    let mut bystander = Raw::connect(server.address());
    let frames: [(&str, Vec<u8>); 8] = [
        ("an unknown API", framed(&header(9_999, 0))),
        ("a version that isn't spoken", framed(&header(3, 99))),
        ("no request at all", framed(b"GET / HTTP/1.1\r\n\r\n")),
        ("an empty frame", framed(b"")),
        (
            "a body cut short",
            framed(&[header(3, 1), vec![0, 0, 0, 5]].concat()),
        ),
        (
            "an array of billions",
            framed(&[header(3, 1), vec![0x7f, 0xff, 0xff, 0xff]].concat()),
        ),
        ("a giant", [&i32::MAX.to_be_bytes()[..], b"xxxx"].concat()),
        ("a negative length", (-1_i32).to_be_bytes().to_vec()),
    ];
    for (what, frame) in frames {
        let mut raw = Raw::connect(server.address());
        raw.send_bytes(&frame);
        assert!(raw.closed(), "{what}");
        let answer = bystander.call(&MetadataRequest::default().with_topics(Some(Vec::new())), 1);
        assert_eq!(answer.brokers.len(), 1, "after {what}");
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let server = Server::start();
    let mut raw = Raw::connect(server.address());
    let versions = ApiVersionsRequest::default();
    let coordinator = FindCoordinatorRequest::default().with_key(text("group"));
    for _ in 0..50 {
        raw.send(&versions, 0);
        raw.send(&coordinator, 2);
    }
    for _ in 0..50 {
        assert_eq!(raw.receive::<ApiVersionsRequest>(0).error_code, 0);
        assert!(raw.receive::<FindCoordinatorRequest>(2).port > 0);
    }
}

#[test]
fn a_client_is_told_the_address_it_came_to() {
    let server = Server::start();
    let mut raw = Raw::connect(server.address());
    let answer = raw.call(&MetadataRequest::default().with_topics(Some(Vec::new())), 9);
    let broker = &answer.brokers[0];
    assert_eq!(
        (broker.host.as_str(), broker.port),
        ("127.0.0.1", i32::from(server.address().port()))
    );
    assert!(answer.cluster_id.is_some_and(|id| id.len() == 22));
}

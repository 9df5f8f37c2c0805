//! SASL/PLAIN: nothing but the way in is answered before it.

use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::time::Duration;
use weir_broker::Auth;

use crate::raw::{Raw, text};
use crate::server::{PATIENCE, Server};

fn guarded() -> Server {
    Server::embedded(|config| {
        config.auth = Auth::Plain {
            username: "weir".to_owned(),
            password: "open sesame".to_owned().into(),
        };
    })
}

fn client(server: &Server, username: &str, password: &str) -> ClientConfig {
    let mut config = server.client();
    config
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", username)
        .set("sasl.password", password);
    config
}

#[test]
fn the_right_password_opens_and_a_wrong_one_does_not() {
    let server = guarded();
    let admin: rdkafka::admin::AdminClient<_> =
        client(&server, "weir", "open sesame").create().unwrap();
    let topic = rdkafka::admin::NewTopic::new("t", 1, rdkafka::admin::TopicReplication::Fixed(1));
    let made = server
        .runtime
        .block_on(admin.create_topics([&topic], &crate::server::options()))
        .unwrap();
    made[0].as_ref().unwrap();
    let producer: FutureProducer = client(&server, "weir", "open sesame").create().unwrap();
    let record = FutureRecord::<(), _>::to("t").payload("in");
    assert_eq!(
        server
            .runtime
            .block_on(producer.send(record, PATIENCE))
            .unwrap()
            .offset,
        0
    );
    for (username, password) in [("weir", "sesame"), ("root", "open sesame"), ("weir", "")] {
        let mut config = client(&server, username, password);
        if password.is_empty() {
            config = server.client();
        }
        let stranger: BaseConsumer = config.create().unwrap();
        assert!(
            stranger
                .fetch_metadata(None, Duration::from_secs(2))
                .is_err(),
            "{username}:{password}"
        );
    }
    assert!(server.metric("weir_broker_refused_total") >= 2.0);
}

#[test]
fn before_it_only_the_way_in_is_answered() {
    let server = guarded();
    let mut raw = Raw::connect(server.address());
    assert_eq!(raw.call(&ApiVersionsRequest::default(), 0).error_code, 0);
    raw.send(&MetadataRequest::default(), 1);
    assert!(raw.closed());

    let mut raw = Raw::connect(server.address());
    let token = SaslAuthenticateRequest::default().with_auth_bytes("\0weir\0open sesame".into());
    let without_handshake = raw.call(&token, 0);
    assert_eq!(without_handshake.error_code, 34, "ILLEGAL_SASL_STATE");
    assert!(raw.closed());

    let mut raw = Raw::connect(server.address());
    let unknown = raw.call(
        &SaslHandshakeRequest::default().with_mechanism(text("SCRAM-SHA-256")),
        1,
    );
    assert_eq!(
        (unknown.error_code, unknown.mechanisms),
        (33, vec![text("PLAIN")])
    );
    assert_eq!(
        raw.call(
            &SaslHandshakeRequest::default().with_mechanism(text("PLAIN")),
            1
        )
        .error_code,
        0
    );
    assert_eq!(raw.call(&token, 0).error_code, 0);
    assert_eq!(raw.call(&MetadataRequest::default(), 1).brokers.len(), 1);

    let mut raw = Raw::connect(server.address());
    assert_eq!(
        raw.call(
            &SaslHandshakeRequest::default().with_mechanism(text("PLAIN")),
            1
        )
        .error_code,
        0
    );
    let wrong = SaslAuthenticateRequest::default().with_auth_bytes("\0weir\0wrong".into());
    assert_eq!(
        raw.call(&wrong, 0).error_code,
        58,
        "SASL_AUTHENTICATION_FAILED"
    );
    assert!(raw.closed());
    // A stranger can't make the broker hold a large request either.
    let mut raw = Raw::connect(server.address());
    raw.send_bytes(&(1_i32 << 20).to_be_bytes());
    assert!(raw.closed());
}

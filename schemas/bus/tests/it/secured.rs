//! Brokers that want TLS and a password: who is let in, and what the others are told.

use weir_bus::{Config, Error};

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, number, producer, unique, until};

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_tls_with_either_mechanism() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let Some(kafka) = Kafka::secured(&[("sasl.mechanism", mechanism)]) else {
            return;
        };
        let config = kafka.config();
        weir_bus::reachable(&config).await.unwrap();
        let topic = kafka.topic(1).await;
        let producer = producer(&config);
        fill(&producer, topic, 0, 0..100).await;
        let (stage, group) = (Shared::default(), unique("group"));
        let worker = Running::start(&config, group, topic, &stage, &producer);
        until("the records", async || stage.count() == 100).await;
        worker.stop().await;
        assert_eq!(kafka.committed(group, topic).await, [(0, 100)].into());
        let records = kafka.read(topic).await.remove(&0).unwrap();
        let numbers = records.iter().map(|record| number(&record.payload));
        assert!(numbers.eq(0..100), "{mechanism}");
    }
}

/// What is said to whoever asks, and to whoever makes the topics.
async fn refusals(config: &Config) -> [Error; 2] {
    let asked = weir_bus::reachable(config);
    let made = weir_bus::create_topics(config, DAY, None);
    let (asked, made) = tokio::join!(asked, made);
    [asked.unwrap_err(), made.unwrap_err()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_to_be_wrong_through_tls() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let wrong = [
            ("sasl.mechanism", mechanism),
            ("sasl.password", "battery staple"),
        ];
        let Some(kafka) = Kafka::secured(&wrong) else {
            return;
        };
        for refusal in refusals(&kafka.config()).await {
            assert!(matches!(refusal, Error::Authentication { .. }), "{refusal}");
            let words = refusal.to_string();
            assert!(words.contains("password"), "{words}");
            assert!(!words.contains("staple"), "{words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mechanism_that_the_broker_does_not_take_is_named() {
    let Some(kafka) = Kafka::secured(&[("sasl.mechanism", "SCRAM-SHA-256")]) else {
        return;
    };
    for refusal in refusals(&kafka.config()).await {
        assert!(
            matches!(&refusal, Error::Setting { property, .. } if property == "sasl.mechanism"),
            "{refusal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_told_from_a_broker_that_is_away() {
    let unknown = [
        ("sasl.mechanism", "PLAIN"),
        ("ssl.ca.location", "other-ca.pem"),
    ];
    let Some(kafka) = Kafka::secured(&unknown) else {
        return;
    };
    let config = kafka.config();
    // The broker's is none of those of the system either.
    let mut system = config.clone();
    system.properties.remove("ssl.ca.location");
    let (others, systems) = tokio::join!(refusals(&config), refusals(&system));
    for refusal in others.into_iter().chain(systems) {
        assert!(matches!(refusal, Error::Unreachable { .. }), "{refusal}");
        let words = refusal.to_string();
        assert!(words.contains("certificate can't be verified"), "{words}");
        assert!(words.contains("`ssl.ca.location`"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told_from_a_broker_that_is_away() {
    let kafka = Kafka::start().await;
    let mut config = kafka.config();
    config
        .properties
        .insert("security.protocol".to_owned(), "ssl".to_owned());
    let refusal = weir_bus::reachable(&config).await.unwrap_err();
    assert!(matches!(refusal, Error::Unreachable { .. }), "{refusal}");
    assert!(refusal.to_string().contains("TLS handshake"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_of_authorities_is_named() {
    let properties = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", "/nobody/ca.pem"),
    ];
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        properties: properties
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Config::default()
    };
    let refusal = weir_bus::reachable(&config).await.unwrap_err();
    assert!(refusal.to_string().contains("ssl.ca.location"), "{refusal}");
}

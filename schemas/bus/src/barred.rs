//! Why brokers that are there don't let us in. Librdkafka says it in words that may quote a
//! setting's value, so what is wrong is told in ours.

use rdkafka::error::RDKafkaErrorCode as Code;

/// What is wrong with how we come in; the later, the more certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Barred {
    /// TLS does not come about. A broker that goes away may look like this too.
    Handshake,
    /// We don't trust the broker.
    Certificate,
    /// The broker does not trust us.
    OurCertificate,
    /// It knows another way to prove who one is.
    Mechanism,
    Password,
}

impl Barred {
    /// What librdkafka's error says of it, if anything.
    pub(crate) fn of(code: Code, reason: &str) -> Option<Self> {
        let says = |words| reason.contains(words);
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed => {
                if says("Unsupported SASL mechanism") {
                    Some(Self::Mechanism)
                } else if says("mechanism handshake failed") {
                    // The broker went away in the middle of it.
                    None
                } else {
                    Some(Self::Password)
                }
            }
            // A failed handshake is also told as a connection that ends, and with TLS 1.3 the
            // broker refuses our certificate after it.
            Code::SSL | Code::BrokerTransportFailure => {
                if says("SSL alert") && (says("certificate") || says("unknown ca")) {
                    Some(Self::OurCertificate)
                } else if says("certificate verify failed") || says("verify broker certificate") {
                    Some(Self::Certificate)
                } else if code == Code::SSL || says("SSL handshake") || says("SSL_HANDSHAKE") {
                    Some(Self::Handshake)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// Whether it is worth a word before all brokers are away.
    pub(crate) fn is_certain(self) -> bool {
        self > Self::Handshake
    }

    /// What is wrong and where to look.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Handshake => "the TLS handshake failed: is it a port with TLS?",
            Self::Certificate => {
                "the broker's certificate can't be verified: `ssl.ca.location` must name the \
                 authority that signed it, and the certificate this host"
            }
            Self::OurCertificate => {
                "the broker does not take our certificate, or wants one: see \
                 `ssl.certificate.location` and `ssl.key.location`"
            }
            Self::Mechanism => "the SASL mechanism is refused: see `sasl.mechanism`",
            Self::Password => "the username or password is refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_words_are_told_apart() {
        for (code, reason, barred) in [
            (
                Code::SSL,
                "sasl_ssl://kafka:9093/bootstrap: SSL handshake failed: error:0A000086:SSL \
                 routines::certificate verify failed: broker certificate could not be verified",
                Some(Barred::Certificate),
            ),
            (
                Code::SSL,
                "SSL handshake failed: error:0A00010B:SSL routines::wrong version number",
                Some(Barred::Handshake),
            ),
            (
                Code::BrokerTransportFailure,
                "SSL handshake failed: Disconnected: connection closed by peer: connecting to \
                 a PLAINTEXT broker listener?",
                Some(Barred::Handshake),
            ),
            (
                Code::BrokerTransportFailure,
                "error:0A000086:SSL routines::certificate verify failed (after 2ms in state \
                 SSL_HANDSHAKE)",
                Some(Barred::Certificate),
            ),
            (
                Code::BrokerTransportFailure,
                "Disconnected: SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)",
                Some(Barred::Handshake),
            ),
            (
                Code::BrokerTransportFailure,
                "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: \
                 SSL alert number 42",
                Some(Barred::OurCertificate),
            ),
            (
                Code::Authentication,
                "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: \
                 broker's supported mechanisms: SCRAM-SHA-512",
                Some(Barred::Mechanism),
            ),
            (
                Code::Authentication,
                "SASL authentication error: Authentication failed during authentication due to \
                 invalid credentials with SASL mechanism SCRAM-SHA-512",
                Some(Barred::Password),
            ),
            (
                Code::BrokerTransportFailure,
                "Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after \
                 0ms in state CONNECT)",
                None,
            ),
            (
                Code::Authentication,
                "SASL PLAIN mechanism handshake failed: Local: Broker transport failure: \
                 broker's supported mechanisms: ",
                None,
            ),
            (Code::AllBrokersDown, "1/1 brokers are down", None),
        ] {
            assert_eq!(Barred::of(code, reason), barred, "{reason}");
        }
    }
}

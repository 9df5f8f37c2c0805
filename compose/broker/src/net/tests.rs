//! Every version of every request is answered, over a real socket.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::samples::{frame, full};
use crate::wire::{APIS, Api};
use crate::{Broker, Config};

/// Sends one request; answers the frame that comes back, or none where the connection was closed.
async fn ask(broker: &Broker, api: &Api, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let request = frame(api, version, body);
    stream
        .write_u32(u32::try_from(request.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&request).await.unwrap();
    let length = stream.read_u32().await.ok()?;
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn every_version_of_every_request_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new("127.0.0.1:0".parse().unwrap(), folder.path());
    let broker = Broker::start(config, &Registry::new()).await.unwrap();
    let log = broker.log_for_tests();
    log.create("topic", 3, crate::log::settings::Overrides::new(), false)
        .unwrap();
    // The second time much exists already, and is refused in every version's words.
    for api in APIS.iter().chain(APIS) {
        for version in api.first..=api.last {
            // It wants no acknowledgement, and has no answer.
            if api.key == ApiKey::Produce {
                continue;
            }
            let body = full(api.key, version);
            let answer = timeout(Duration::from_secs(30), ask(&broker, api, version, &body)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{} {version} hangs", api.name));
            let answer =
                answer.unwrap_or_else(|| panic!("{} {version} closes the connection", api.name));
            assert_eq!(answer[..4], 7_i32.to_be_bytes(), "{} {version}", api.name);
        }
    }
    broker.shutdown().await;
}

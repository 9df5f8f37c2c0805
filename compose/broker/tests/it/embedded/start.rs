//! Why a broker does not start: one clear reason each.

use prometheus::Registry;
use tokio::runtime::Runtime;
use weir_broker::{Broker, Config, Error};

use crate::server::{Server, any_port};

fn fails(runtime: &Runtime, config: Config) -> Error {
    runtime
        .block_on(Broker::start(config, &Registry::new()))
        .unwrap_err()
}

#[test]
fn a_second_broker_keeps_off_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let error = fails(&server.runtime, Config::new(any_port(), folder.path()));
    assert!(matches!(error, Error::Locked(_)), "{error}");
    assert!(error.to_string().contains("in use by another broker"));
    server.stop();
    // Free again.
    Server::on(folder.path(), |_| {}).stop();
}

#[test]
fn an_occupied_address_is_named() {
    let (server, folder) = (Server::embedded(|_| {}), tempfile::tempdir().unwrap());
    let error = fails(
        &server.runtime,
        Config::new(server.address(), folder.path()),
    );
    assert!(
        matches!(error, Error::AddressInUse(address) if address == server.address()),
        "{error}"
    );
}

#[test]
fn a_folder_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Server::on(folder.path(), |_| {}).stop();
    let version = folder.path().join("format-version");
    assert_eq!(std::fs::read_to_string(&version).unwrap(), "1\n");
    std::fs::write(&version, "2\n").unwrap();
    let error = fails(
        &Runtime::new().unwrap(),
        Config::new(any_port(), folder.path()),
    );
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_folder_that_can_not_be_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = fails(
        &Runtime::new().unwrap(),
        Config::new(any_port(), file.join("data")),
    );
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    // A topic whose description is damaged is not silently left out.
    let data = folder.path().join("data");
    let server = Server::on(&data, |_| {});
    let topic = server.topic("t", 1, &[]);
    server.stop();
    std::fs::write(data.join("topics").join(topic).join("topic"), "nonsense").unwrap();
    let error = fails(&Runtime::new().unwrap(), Config::new(any_port(), &data));
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

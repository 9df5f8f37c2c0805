//! A database that takes TLS.

use weir_store::cql::{Store, migrate};
use weir_store::{Error, History as _};

use crate::backend::{Cql, authorities, run_with};
use crate::rows::row;

#[tokio::test]
async fn a_store_is_reached_through_tls_with_its_authority() {
    let Some(folder) = authorities() else {
        return;
    };
    let tls = |config: &mut weir_store::cql::Config| config.tls.ca = folder.join("ca.pem");
    run_with(tls, async |cql: &Cql| {
        let store = cql.store().await;
        let row = row("m", 1);
        assert_eq!(store.write(0, std::slice::from_ref(&row)).await.unwrap(), 1);
        assert_eq!(store.message("acme", "m").await.unwrap(), Some(row));
    })
    .await;
}

#[tokio::test]
async fn a_store_with_a_certificate_of_another_authority_is_refused() {
    let Some(folder) = authorities() else {
        return;
    };
    let tls = |config: &mut weir_store::cql::Config| config.tls.ca = folder.join("other-ca.pem");
    run_with(tls, async |cql: &Cql| {
        for error in [
            Store::connect(&cql.0).await.unwrap_err(),
            migrate(&cql.0).await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, Error::Setting { setting: "tls", .. }),
                "{error}"
            );
            let words = error.to_string();
            assert!(words.contains("certificate can't be verified"), "{words}");
        }
    })
    .await;
}

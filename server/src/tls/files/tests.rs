use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// A certificate that is valid in the years 2001 and 2002.
fn certificate() -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2003, 1, 1);
    let certificate = params.self_signed(&KeyPair::generate().unwrap());
    certificate.unwrap().der().clone()
}

fn in_year(year: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600 + 10_000_000))
}

#[test]
fn dates_that_clients_will_not_accept_are_noticed() {
    let chain = [certificate()];
    let said = |year| {
        let provider = Arc::new(ring::default_provider());
        dates(&chain, provider, in_year(year)).map(|error| error.to_string())
    };
    assert_eq!(said(2002), None);
    assert!(said(2005).unwrap().contains("expired"));
    assert!(said(2000).unwrap().contains("not valid yet"));
}

//! Another envelope takes the place of the one that is served.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use server::Settings;
use support::{Answer, Service, becomes, call, components, digest, slow_components};

/// The factor of the envelope that answered, by the header; the answer must be its own.
#[track_caller]
fn factor_of(answer: &Answer, x: f64) -> f64 {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let found = answer.header("x-envelope-digest").unwrap();
    let factor = (2..2000)
        .map(f64::from)
        .find(|factor| digest(*factor).to_string() == found);
    let factor = factor.unwrap();
    assert_eq!(
        answer.body,
        format!("{{\"predictions\":[{:?}]}}", x * factor)
    );
    factor
}

fn swap_to(service: &Service, factor: f64) -> Arc<support::Model> {
    let (components, model) = components(factor);
    service
        .executor
        .block_on(service.swap.to(components))
        .unwrap();
    model
}

#[test]
fn the_next_request_finds_the_new_envelope() {
    let service = Service::start(Settings::default());
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 2.0);
    let model = swap_to(&service, 3.0);
    assert_eq!(
        model.called.load(Ordering::SeqCst),
        1,
        "it has answered its sample"
    );
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 3.0);
    for page in ["/envelope", "/healthz", "/metrics", "/openapi.json", "/"] {
        let page = service.get(page);
        assert_eq!(
            page.header("x-envelope-digest").unwrap(),
            digest(3.0).to_string()
        );
        assert!(page.body.contains(&digest(3.0).to_string()));
    }
}

#[test]
fn a_call_in_flight_ends_where_it_began() {
    let (first, old) = slow_components(2.0, Duration::from_millis(200));
    let service = Service::of(Settings::default(), first);
    let mut stream = service.connect();
    stream.write_all(call(5.0, "").as_bytes()).unwrap();
    becomes(|| old.called.load(Ordering::SeqCst) == 2);
    swap_to(&service, 3.0);
    swap_to(&service, 4.0);
    assert_eq!(factor_of(&Answer::read(&mut stream).unwrap(), 5.0), 2.0);
    becomes(|| old.has_ended.load(Ordering::SeqCst));
}

#[test]
fn an_envelope_that_does_not_answer_its_sample_is_not_served() {
    let service = Service::start(Settings::default());
    let (mut bad, model) = components(3.0);
    bad.samples[0] = Some(support::batch([-1.0]));
    let error = service.executor.block_on(service.swap.to(bad)).unwrap_err();
    assert_eq!(error.code(), "self_test_failed");
    assert!(model.has_ended.load(Ordering::SeqCst));
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 2.0);
    assert!(
        service
            .get("/metrics")
            .body
            .contains("envelope_swaps_total{outcome=\"refused\"} 1\n")
    );
}

#[test]
fn the_one_before_is_brought_back_without_new_workers() {
    let (first, old) = components(2.0);
    let service = Service::of(Settings::default(), first);
    swap_to(&service, 3.0);
    let back = |factor| {
        service
            .executor
            .block_on(service.swap.back_to(digest(factor)))
    };
    assert!(!back(7.0));
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 3.0);
    assert!(back(2.0));
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 2.0);
    assert_eq!(
        old.called.load(Ordering::SeqCst),
        2,
        "the sample once, and one call"
    );
    assert!(back(3.0) && back(3.0));
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 3.0);
    assert!(
        service
            .get("/metrics")
            .body
            .contains("envelope_swaps_total{outcome=\"back\"} 2\n")
    );
}

#[test]
fn the_one_before_is_kept_for_a_while_only() {
    let (first, old) = components(2.0);
    let settings = Settings {
        keep_previous: Duration::from_millis(50),
        ..Settings::default()
    };
    let service = Service::of(settings, first);
    swap_to(&service, 3.0);
    becomes(|| old.has_ended.load(Ordering::SeqCst));
    assert!(!service.executor.block_on(service.swap.back_to(digest(2.0))));
    assert_eq!(factor_of(&service.ask(5.0), 5.0), 3.0);
}

#[test]
fn all_workers_end_with_the_service() {
    let (first, old) = components(2.0);
    let mut service = Service::of(Settings::default(), first);
    let new = swap_to(&service, 3.0);
    service.stop();
    assert!(old.has_ended.load(Ordering::SeqCst) && new.has_ended.load(Ordering::SeqCst));
}

/// Asks over and over, over connections that stay and new ones, until told to stop.
fn hammer(service: &Service, is_over: &AtomicBool) -> usize {
    let mut stream: Option<TcpStream> = None;
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        let x = f64::from(u32::try_from(count % 1000).unwrap());
        let mut connection = stream.take().unwrap_or_else(|| service.connect());
        connection.write_all(call(x, "").as_bytes()).unwrap();
        factor_of(&Answer::read(&mut connection).unwrap(), x);
        count += 1;
        stream = (count % 50 != 0).then_some(connection);
    }
    count
}

/// How many there are: `SWAPS` for more of them.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to set up a test"
)]
fn swaps(usual: u32) -> u32 {
    std::env::var("SWAPS").map_or(usual, |swaps| swaps.parse().unwrap())
}

#[test]
fn no_call_fails_while_envelopes_change() {
    let swaps = swaps(100);
    let (first, _) = slow_components(2.0, Duration::from_millis(1));
    let service = Service::of(Settings::default(), first);
    let calls = under_load(&service, hammer, || {
        for number in 0..swaps {
            let (next, _) = slow_components(f64::from(3 + number % 1900), Duration::from_millis(1));
            service.executor.block_on(service.swap.to(next)).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    println!("{swaps} swaps under {calls} calls, none failed");
    assert!(calls > swaps as usize);
}

/// Does something while four clients ask; tells how often.
fn under_load(
    service: &Service,
    client: impl Fn(&Service, &AtomicBool) -> usize + Sync,
    work: impl FnOnce(),
) -> usize {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || client(service, &is_over);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        work();
        is_over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    })
}

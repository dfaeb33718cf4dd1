//! What is refused whatever a request asks for: another host, an expectation that nobody meets, what
//! is not shown at this port.

use std::net::IpAddr;

use hyper::header::{EXPECT, HOST};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use crate::admit::Client;
use crate::error::Refusal;
use crate::ports::Port;
use crate::route::{Page, page_at};
use crate::settings::Settings;

/// The rules for all requests.
#[derive(Debug)]
pub(crate) struct Entrance {
    calls: Hosts,
    /// There is a port for health and metrics alone, with its own hosts.
    monitors: Option<Hosts>,
}

/// By which hosts a service goes.
///
/// A page in a browser may give its own name the address of this machine, and then ask a service that
/// only this machine can reach, and read the answers. Such a request tells the page's name.
#[derive(Debug)]
enum Hosts {
    /// It may be reached from everywhere, and nobody has said under which names.
    Any,
    Known {
        names: Vec<String>,
        /// Only this machine can reach it: by no other address than that of the machine itself.
        is_loopback: bool,
    },
}

impl Entrance {
    pub(crate) fn new(settings: &Settings) -> Self {
        let hosts = |address: IpAddr| Hosts::new(address, &settings.allow_hosts);
        let monitors = settings.listen_for_monitors;
        Self {
            calls: hosts(settings.listen.ip()),
            monitors: monitors.map(|listen| hosts(listen.ip())),
        }
    }

    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let port = Client::of(request.extensions()).port;
        let hosts = match (port, &self.monitors) {
            (Port::Monitors, Some(hosts)) => hosts,
            (Port::Calls | Port::Monitors, _) => &self.calls,
        };
        hosts.check(request)?;
        expectation(request)?;
        if self.is_shown(page_at(request.uri().path()), port) {
            Ok(())
        } else {
            Err(Refusal::NoSuchPath)
        }
    }

    fn is_shown(&self, page: Option<Page>, port: Port) -> bool {
        match port {
            Port::Calls => self.monitors.is_none() || page != Some(Page::Metrics),
            Port::Monitors => page.is_some_and(Page::is_for_monitors),
        }
    }
}

impl Hosts {
    fn new(address: IpAddr, names: &[String]) -> Self {
        let is_loopback = address.is_loopback();
        if !is_loopback && names.is_empty() {
            return Self::Any;
        }
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        Self::Known {
            names: names.collect(),
            is_loopback,
        }
    }

    fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        match host(request)? {
            Some(host) if !self.have(host.host()) => Err(Refusal::UnknownHost),
            Some(_) | None => Ok(()),
        }
    }

    fn have(&self, host: &str) -> bool {
        let Self::Known { names, is_loopback } = self else {
            return true;
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            // An address is no name that somebody else could give an address to.
            Ok(address) => address.to_canonical().is_loopback() || !is_loopback,
            Err(_) => host == "localhost" || host.ends_with(".localhost") || names.contains(&host),
        }
    }
}

/// The host that a request is for. Clients of HTTP/1.0 need not tell.
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Refusal> {
    let mut told = request.headers().get_all(HOST).iter();
    let (told, more) = (told.next(), told.next());
    if more.is_some() || (told.is_none() && request.version() == Version::HTTP_11) {
        return Err(Refusal::BadHost);
    }
    let told = told.map(|told| Authority::try_from(told.as_bytes()));
    let told = told.transpose().map_err(|_| Refusal::BadHost)?;
    let asked = request.uri().authority().cloned();
    let agree = match (&asked, &told) {
        (Some(asked), Some(told)) => asked.host().eq_ignore_ascii_case(told.host()),
        _ => true,
    };
    let host = asked.or(told);
    let has_user = |host: &Authority| host.as_str().contains('@');
    if agree && !host.as_ref().is_some_and(has_user) {
        Ok(host)
    } else {
        Err(Refusal::BadHost)
    }
}

/// hyper says `100 Continue` by itself. There is nothing else that could be expected.
fn expectation<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut expected = request.headers().get_all(EXPECT).iter();
    if expected.all(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        Ok(())
    } else {
        Err(Refusal::Expectation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(address: &str, names: &[&str]) -> Hosts {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::new(address.parse().unwrap(), &names)
    }

    fn request(uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::get(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, host.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_service_of_this_machine_goes_by_names_of_this_machine() {
        let own = hosts("127.0.0.1", &["Model.Internal"]);
        let known = [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "model.internal",
            "model.INTERNAL.",
        ];
        for host in known {
            assert!(own.have(host), "{host}");
        }
        let others = [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "2130706433",
            "",
            "internal",
        ];
        for host in others {
            assert!(!own.have(host), "{host}");
        }
    }

    #[test]
    fn a_service_for_others_goes_by_any_name_until_some_are_said() {
        assert!(hosts("0.0.0.0", &[]).have("evil.test"));
        let said = hosts("0.0.0.0", &["models.test"]);
        for (host, is_known) in [
            ("models.test", true),
            ("10.1.2.3", true),
            ("localhost", true),
            ("evil.test", false),
        ] {
            assert_eq!(said.have(host), is_known, "{host}");
        }
    }

    #[test]
    fn a_request_is_for_one_host() {
        let is_for = |uri, hosts: &[&str]| host(&request(uri, hosts));
        let good = [
            ("/", vec!["localhost:8080"], "localhost"),
            ("http://localhost/", vec!["LOCALHOST:80"], "localhost"),
            ("/", vec!["[::1]:1"], "[::1]"),
        ];
        for (uri, told, expected) in good {
            let host = is_for(uri, &told).unwrap().unwrap();
            assert_eq!(host.host(), expected, "{told:?}");
        }
        let bad = [
            ("/", vec![]),
            ("/", vec!["a", "a"]),
            ("/", vec![""]),
            ("/", vec!["localhost@evil.test"]),
            ("/", vec!["a b"]),
            ("http://evil.test/", vec!["localhost"]),
            ("http://me@localhost/", vec!["localhost"]),
        ];
        for (uri, told) in bad {
            let refused = is_for(uri, &told);
            assert!(matches!(refused, Err(Refusal::BadHost)), "{uri} {told:?}");
        }
    }

    #[test]
    fn a_client_of_http_1_0_need_not_tell_a_host() {
        let mut request = request("/", &[]);
        *request.version_mut() = Version::HTTP_10;
        assert!(matches!(host(&request), Ok(None)));
    }

    #[test]
    fn nothing_but_continue_is_met() {
        let expecting = |what: &str| {
            let request = Request::get("/").header(EXPECT, what).body(()).unwrap();
            expectation(&request).is_ok()
        };
        assert!(expecting("100-continue") && expecting("100-Continue"));
        assert!(!expecting("a-coffee") && !expecting("100-continue, a-coffee") && !expecting(""));
    }
}

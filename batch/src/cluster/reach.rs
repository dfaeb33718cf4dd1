//! How an executor is reached: for each of its two services a port of this machine, and with
//! credentials a door of the same number at the address that others see.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::join_all;

use super::credentials::Keys;
use super::door::{Door, Inside};
use super::listen::{HERE, free_port, is_free};
use super::tunnel::Tunnels;

#[derive(Debug)]
pub(super) struct Reach {
    /// What others connect to.
    pub(super) host: IpAddr,
    /// Port of what tasks have given.
    pub(super) results: u16,
    /// Port at which tasks are taken.
    pub(super) tasks: u16,
    pub(super) tunnels: Option<Arc<Tunnels>>,
    doors: Vec<Door>,
}

/// How often a port is looked for that is free here and outside.
const TRIES: usize = 100;

impl Reach {
    /// For others on this machine.
    pub(super) fn here() -> io::Result<Self> {
        Ok(Self {
            host: HERE,
            results: free_port()?,
            tasks: free_port()?,
            tunnels: None,
            doors: vec![],
        })
    }

    /// For those on other machines, at `host`.
    pub(super) async fn outside(host: IpAddr, keys: Arc<Keys>) -> io::Result<Self> {
        if host == HERE || host.is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "others cannot reach it there; with credentials, `--listen` is the address of this \
                 machine that they connect to",
            ));
        }
        let (results, tasks) = (door(host, &keys).await?, door(host, &keys).await?);
        Ok(Self {
            host,
            results: results.address()?.port(),
            tasks: tasks.address()?.port(),
            tunnels: Some(Tunnels::new(keys)?),
            doors: vec![results, tasks],
        })
    }

    /// The doors, taken out.
    pub(super) fn doors(&mut self) -> Vec<Door> {
        std::mem::take(&mut self.doors)
    }
}

/// Ballista has one number for where it listens and for where it says that it does.
async fn door(host: IpAddr, keys: &Arc<Keys>) -> io::Result<Door> {
    for _ in 0..TRIES {
        let door = Door::bind(SocketAddr::new(host, 0), Arc::clone(keys)).await?;
        if is_free(door.address()?.port()) {
            return Ok(door);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Leads in through all doors.
pub(super) async fn lead(doors: Vec<Door>) -> io::Result<Infallible> {
    let mut leading = vec![];
    for door in doors {
        let speaker = SocketAddr::new(HERE, door.address()?.port());
        leading.push(door.lead_to(Inside {
            speaker,
            lender: None,
        }));
    }
    join_all(leading).await;
    pending().await
}

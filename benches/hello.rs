//! The least that a service can be: hyper reads the body and answers with a constant.
//!
//! `hello` prints its address and serves until it is ended. What a real service answers in a second
//! where its function is free, as a share of this, is what the service itself costs.
#![expect(clippy::print_stdout, reason = "the bench reads the address")]

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// As long as the answer of a service to one row.
const ANSWER: &[u8] = br#"{"predictions":[0.5]}"#;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let conversation =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
        // A client that goes away is no business of ours.
        tokio::spawn(async { conversation.await.ok() });
    }
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A body that ends early is answered like any other: nothing here depends on it.
    let _body = request.into_body().collect().await.ok();
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

//! One request, out and home: route → admit → body → decode → call → encode.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{Request, Response};

use crate::apart::{apart, written_bytes};
use crate::body;
use crate::error::Refusal;
use crate::protocol::Asked;
use crate::route::Target;
use crate::stages::Stages;
use crate::telemetry::Timer;

/// Answers one request. Each stage takes a value and gives the next one.
pub(crate) async fn answer<B>(
    stages: &Stages,
    request: Request<B>,
    timer: &mut Timer,
) -> Result<Response<Full<Bytes>>, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let (function, protocol) = match stages.routes.find(&head.method, head.uri.path())? {
        Target::Page(page) => return Ok(stages.pages.show(page, &head.headers)),
        Target::Model(protocol, function) => return Ok(stages.pages.model(protocol, function)),
        Target::Function(function, protocol) => (function.clone(), protocol),
    };
    timer.is_for(&function);
    let media = protocol.media(&head.headers)?;
    let _permit = stages.admission.admit(&head.extensions)?;
    let patience = body::patience(&head.headers, stages.settings.call_deadline)?;
    function.batcher.has_time(patience)?;
    let body = body::read(&head.headers, body, &stages.settings).await?;
    let accepts_gzip = body::accepts_gzip(&head.headers);
    let (asked, function) = apart(body.len(), move || {
        let asked = protocol.read(&function, &head.headers, media, &body);
        (asked, function)
    })
    .await?;
    let Asked { rows, form } = asked?;
    let output = function.call(rows, patience, timer).await?;
    apart(written_bytes(&output), move || {
        let response = form.write(&function, &output)?;
        body::compressed(response, accepts_gzip)
    })
    .await?
}

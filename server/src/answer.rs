//! One request, out and home: route → admit → body → decode → call → encode.

use arrow_array::RecordBatch;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

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
    timer.has_rows(rows.num_rows());
    let output = if rows.num_rows() == 0 {
        RecordBatch::new_empty(function.gives.clone())
    } else {
        let deadline = Instant::now() + patience;
        function.batcher.call(rows, deadline).await?
    };
    // Not the size of its buffers: other calls of the same batch share them.
    let bytes = output
        .num_rows()
        .saturating_mul(output.num_columns() * CELL_BYTES);
    apart(bytes, move || {
        let response = form.write(&function, &output)?;
        body::compressed(response, accepts_gzip)
    })
    .await?
}

/// Above so many bytes the work is done on a thread of its own, so that health checks and short
/// calls need not wait for it. Below, a millisecond of it costs less than the change of thread.
const APART_BYTES: usize = 256 << 10;

/// What a cell takes as text, roughly.
const CELL_BYTES: usize = 16;

async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < APART_BYTES {
        return Ok(work());
    }
    spawn_blocking(work).await.map_err(|_| Refusal::Internal)
}

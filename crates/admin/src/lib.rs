//! The operators' port: health, Prometheus metrics, the cluster's state as JSON, and a page that shows it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | 200 `ok`, with what an operator should look at, or 503 with the reason |
//! | `GET /metrics` | Prometheus text (OpenMetrics 1.0) |
//! | `GET /api/status` | what `tessera status` prints, as JSON |
//! | `POST /api/command/NAME` | runs an operator's command with the JSON body as its arguments |
//! | `GET /` | a page over `/api/status` |
//!
//! What the state is made of is the business of the `Source`; this crate only carries it. It has no
//! authentication: a node listens beyond loopback only when told to.

mod page;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What the port shows.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The cluster as this node sees it.
    fn status(&self) -> Value;

    /// `Ok` begins with "ok" and says what an operator should look at; `Err` says why clients should go elsewhere.
    fn health(&self) -> Result<String, String>;

    /// Runs an operator's command. `Err` is shown as it is.
    async fn command(&self, name: &str, arguments: Value) -> Result<Value, CommandError>;
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No command has this name.
    Unknown,
    /// The arguments are wrong.
    Invalid(String),
    /// It could not be done now.
    Failed(String),
}

const CONNECTIONS_MAX: usize = 256;
const BODY_BYTES_MAX: usize = 1 << 20;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the port until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Source>,
    registry: Arc<Registry>,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the peer is gone already: neither is this listener's end.
                Err(error) => {
                    tracing::warn!(%error, "admin: accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let (source, registry) = (source.clone(), registry.clone());
        tokio::spawn(async move {
            let service =
                service_fn(move |request| answer(request, source.clone(), registry.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin: connection ended");
            }
            drop(slot);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    source: Arc<dyn Source>,
    registry: Arc<Registry>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if let Some(name) = path.strip_prefix("/api/command/") {
        return Ok(command(name, request, source.as_ref()).await);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is allowed here\n".into(),
        );
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match path.as_str() {
        "/" => typed(
            StatusCode::OK,
            "text/html; charset=utf-8",
            page::PAGE.into(),
        ),
        "/health" => match source.health() {
            Ok(state) => text(StatusCode::OK, format!("{state}\n")),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/metrics" => metrics(&registry),
        "/api/status" => json(StatusCode::OK, &source.status()),
        _ => text(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}\n"),
        ),
    })
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::with_capacity(16 << 10);
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => typed(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body,
        ),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("metrics: {error}\n"),
        ),
    }
}

async fn command(
    name: &str,
    request: Request<Incoming>,
    source: &dyn Source,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "commands are POSTed\n".into(),
        );
    }
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return refusal(
                StatusCode::BAD_REQUEST,
                &format!("the body cannot be read: {error}"),
            );
        }
    };
    let arguments = match body.is_empty() {
        true => Value::Null,
        false => match serde_json::from_slice(&body) {
            Ok(arguments) => arguments,
            Err(error) => {
                return refusal(
                    StatusCode::BAD_REQUEST,
                    &format!("the body is not JSON: {error}"),
                );
            }
        },
    };
    match source.command(name, arguments).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(CommandError::Unknown) => refusal(
            StatusCode::NOT_FOUND,
            &format!("there is no command {name}"),
        ),
        Err(CommandError::Invalid(message)) => refusal(StatusCode::BAD_REQUEST, &message),
        Err(CommandError::Failed(message)) => refusal(StatusCode::CONFLICT, &message),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": message }))
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    typed(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

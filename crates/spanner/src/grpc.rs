//! Between HTTP/2 and the handlers: which method a path names, decoding, encoding, compression, limits, and
//! what is counted. The message types are generated elsewhere; the servers are these few functions.

use crate::Door;
use crate::forward::{self, OfTransaction};
use crate::metrics::Measured;
use futures::Stream;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{CompressionEncoding, http};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A commit holds at most 100 MiB of mutations; a little more for what is around them.
const REQUEST_BYTES_MAX: usize = 104 << 20;
/// A cell holds at most 10 MiB, which base64 makes longer by a third.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// What is left of what did not come to its end.
pub const INTERRUPTED: &str = "the request was interrupted; its outcome is unknown";

pub type Reply =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send + 'static>>;
pub type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send + 'static>>;

fn grpc<Q, A>() -> Grpc<ProstCodec<A, Q>>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::<A, Q>::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX)
}

/// Carries something out whatever becomes of the client's connection, with which the request's own future goes: a
/// client repeats what it has no answer to, and is to find it done or not done, but never half done.
pub async fn detached<A: Send + 'static>(
    work: impl Future<Output = Result<A, Status>> + Send + 'static,
) -> Result<A, Status> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(Status::unknown(INTERRUPTED)))
}

/// Answers one message with one.
pub fn unary<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: http::Request<Body>,
    handler: F,
) -> Reply
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move {
        let service = Unary(Some((door, method, handler)));
        Ok(grpc::<Q, A>().unary(service, request).await)
    })
}

/// Answers one message with many.
pub fn streaming<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: http::Request<Body>,
    handler: F,
) -> Reply
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<Answers<A>, Status>> + Send + 'static,
{
    Box::pin(async move {
        let service = ServerStreaming(Some((door, method, handler)));
        Ok(grpc::<Q, A>().server_streaming(service, request).await)
    })
}

/// As `unary`, at whichever node has the transaction.
pub fn unary_of_transaction<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: http::Request<Body>,
    handler: F,
) -> Reply
where
    Q: OfTransaction,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<A, Status>> + Send + 'static,
{
    unary(door, method, request, move |door, request: Q| {
        forward::unary(door, method, request, handler)
    })
}

/// As `streaming`, at whichever node has the transaction.
pub fn streaming_of_transaction<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: http::Request<Body>,
    handler: F,
) -> Reply
where
    Q: OfTransaction,
    A: prost::Message + Default + Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<Answers<A>, Status>> + Send + 'static,
{
    streaming(door, method, request, move |door, request: Q| {
        forward::streaming(door, method, request, handler)
    })
}

/// Answers a method that no service here has.
pub fn unimplemented(door: Arc<Door>, path: &str) -> Reply {
    door.metrics
        .measure("unknown")
        .finish(tonic::Code::Unimplemented);
    let status = Status::unimplemented(format!("{path} is not supported by Tessera yet"));
    Box::pin(async move { Ok(status.into_http()) })
}

struct Unary<F>(Option<(Arc<Door>, &'static str, F)>);

impl<Q, A, F, O> UnaryService<Q> for Unary<F>
where
    A: Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let Some((door, method, handler)) = self.0.take() else {
            return Box::pin(async { Err(Status::internal("a call was made twice")) });
        };
        let measured = door.metrics.measure(method);
        let answer = handler(door, request.into_inner());
        Box::pin(async move {
            let result = answer.await;
            measured.finish(result.as_ref().err().map_or(tonic::Code::Ok, Status::code));
            result.map(Response::new)
        })
    }
}

struct ServerStreaming<F>(Option<(Arc<Door>, &'static str, F)>);

impl<Q, A, F, O> ServerStreamingService<Q> for ServerStreaming<F>
where
    A: Send + 'static,
    F: FnOnce(Arc<Door>, Q) -> O + Send + 'static,
    O: Future<Output = Result<Answers<A>, Status>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = MeasuredAnswers<A>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<MeasuredAnswers<A>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let Some((door, method, handler)) = self.0.take() else {
            return Box::pin(async { Err(Status::internal("a call was made twice")) });
        };
        let measured = door.metrics.measure(method);
        let answer = handler(door, request.into_inner());
        Box::pin(async move {
            match answer.await {
                Ok(answers) => Ok(Response::new(MeasuredAnswers {
                    answers,
                    measured: Some(measured),
                })),
                Err(status) => {
                    measured.finish(status.code());
                    Err(status)
                }
            }
        })
    }
}

/// A stream of answers that is counted when it ends.
pub struct MeasuredAnswers<A> {
    answers: Answers<A>,
    measured: Option<Measured>,
}

impl<A> Stream for MeasuredAnswers<A> {
    type Item = Result<A, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<A, Status>>> {
        let polled = self.answers.as_mut().poll_next(context);
        let code = match &polled {
            Poll::Ready(None) => Some(tonic::Code::Ok),
            Poll::Ready(Some(Err(status))) => Some(status.code()),
            _ => None,
        };
        if let Some(code) = code
            && let Some(measured) = self.measured.take()
        {
            measured.finish(code);
        }
        polled
    }
}

impl<A> Drop for MeasuredAnswers<A> {
    fn drop(&mut self) {
        if let Some(measured) = self.measured.take() {
            measured.finish(tonic::Code::Cancelled);
        }
    }
}

/// A service: its name, and a method table. `unary` methods answer with a message, `streaming` ones with several; those
/// `of_transaction` are carried out where it is open.
macro_rules! service {
    (
        $(#[$doc:meta])* $service:ident, $name:literal,
        { $($kind:ident $method:ident => $handler:path;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $service(pub std::sync::Arc<$crate::Door>);

        impl $service {
            pub const METHODS: &'static [&'static str] = &[$(stringify!($method),)*];
        }

        impl tonic::server::NamedService for $service {
            const NAME: &'static str = $name;
        }

        impl tonic::codegen::Service<tonic::codegen::http::Request<tonic::body::Body>> for $service {
            type Response = tonic::codegen::http::Response<tonic::body::Body>;
            type Error = std::convert::Infallible;
            type Future = $crate::grpc::Reply;

            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(
                &mut self,
                request: tonic::codegen::http::Request<tonic::body::Body>,
            ) -> Self::Future {
                let door = self.0.clone();
                let method = request.uri().path().rsplit('/').next().unwrap_or_default();
                match method {
                    $(stringify!($method) => {
                        $crate::grpc::$kind(door, stringify!($method), request, $handler)
                    })*
                    _ => $crate::grpc::unimplemented(door, request.uri().path()),
                }
            }
        }
    };
}

pub(crate) use service;

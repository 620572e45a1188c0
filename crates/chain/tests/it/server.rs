//! A server that answers what a closure says, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tidegate_chain::endpoints::{EndpointConfig, Endpoints, Hedging};
use tidegate_rules::block::Network;
use url::Url;

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// What the server says.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Json(Value),
    /// A 200 with this text, whatever it is.
    Text(String),
    Status(u16, &'static [(&'static str, &'static str)], String),
    /// Nothing, for ever.
    Silence,
}

pub(crate) struct Server {
    pub(crate) url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        let answer = Arc::new(answer);
        let handle = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let asked = Asked { path: uri.path().to_owned(), headers, body };
                let answer = answer(&asked);
                log.lock().unwrap().push(asked);
                respond(answer).await
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    /// Everything asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn respond(answer: Answer) -> Response {
    match answer {
        Answer::Json(value) => value.to_string().into_response(),
        Answer::Text(text) => text.into_response(),
        Answer::Status(status, headers, text) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
            for (key, value) in headers {
                response.headers_mut().insert(*key, value.parse().unwrap());
            }
            response
        }
        Answer::Silence => std::future::pending().await,
    }
}

/// A pool over servers, in this order, without chance in its back-off, and without hedges, or a
/// busy machine would change who is asked.
pub(crate) fn pool(servers: &[&Server]) -> Endpoints {
    let configs = servers.iter().map(|server| config(server)).collect();
    Endpoints::new(&Network::new("testnet"), configs, Box::new(|| 0)).unwrap().with_hedging(Hedging::Off)
}

pub(crate) fn config(server: &Server) -> EndpointConfig {
    let mut config = EndpointConfig::new(server.url.clone());
    config.timeout = Duration::from_secs(5);
    config
}

/// Lets time pass for the pool's rests; nothing is under way meanwhile.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

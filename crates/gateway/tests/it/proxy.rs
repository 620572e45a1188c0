//! An endpoint between the gateway and the node: passes everything on, or behaves as endpoints do
//! on bad days. It has another host name than the node, so that the two count as two.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::http;

/// How the endpoint is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It says what the node says.
    Honest,
    /// It takes questions and answers none of them until it is better.
    Silent,
    /// Everything fails.
    Broken,
    /// It has no block above this one.
    Behind(u64),
    /// It shows other blocks above this one.
    Elsewhere(u64),
}

pub struct Proxy {
    /// With the host `localhost`; the node's is `127.0.0.1`.
    pub url: String,
    mood: watch::Sender<Mood>,
    server: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn before(node: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let (mood, shown) = watch::channel(Mood::Honest);
        let (node, client) = (node.to_owned(), http());
        let app = Router::new().fallback(async move |body: Bytes| {
            let mood = *shown.clone().wait_for(|mood| *mood != Mood::Silent).await.unwrap();
            answer(&client, &node, mood, &body).await
        });
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, mood, server }
    }

    pub fn is_now(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(client: &reqwest::Client, node: &str, mood: Mood, body: &Bytes) -> (StatusCode, String) {
    if mood == Mood::Broken {
        return (StatusCode::BAD_GATEWAY, "the upstream is gone".to_owned());
    }
    let asked = client.post(node).header("content-type", "application/json").body(body.to_vec()).send().await;
    let Ok(answer) = asked else { return (StatusCode::BAD_GATEWAY, "no node".to_owned()) };
    let mut answer: Value = answer.json().await.unwrap();
    match answer.as_array_mut() {
        Some(answers) => answers.iter_mut().for_each(|answer| bend(answer, mood)),
        None => bend(&mut answer, mood),
    }
    (StatusCode::OK, answer.to_string())
}

/// Makes of an honest answer what this mood says. Only blocks are told differently.
fn bend(answer: &mut Value, mood: Mood) {
    let number = answer["result"]["number"].as_str().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    match (mood, number) {
        (Mood::Behind(last), Some(number)) if number > last => answer["result"] = Value::Null,
        (Mood::Elsewhere(last), Some(number)) if number > last => {
            answer["result"]["hash"] = json!(format!("0x{:064x}", number));
        }
        _ => {}
    }
}

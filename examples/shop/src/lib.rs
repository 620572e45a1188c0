//! A small shop that takes USDT through Tidegate. It shows all that an integrator needs: an order is
//! created once however often somebody presses *Buy* (`Shop::buy`), the payer is sent to the checkout,
//! and what was bought is delivered when the signed webhook says so ([`webhook::verify`], then
//! `Shop::hear`).
//!
//! It keeps its orders in memory. A real shop keeps them in its database, and marks one as paid in
//! the transaction that remembers the webhook's id.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shop stands outside the gateway's walls: it reads the clock, draws its own numbers and builds its own client"
)]

pub mod webhook;

use std::collections::{HashMap, HashSet};
use std::path::Path as File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is on sale: a name for URLs, a name for people, a price in USDT. A price is text, never a
/// floating-point number.
const PRODUCTS: [(&str, &str, &str); 2] = [("tea", "A pot of tea", "4.5"), ("hosting", "A month of hosting", "12")];

/// How long the gateway may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What `tidegate dev` writes to `credentials.json`.
#[derive(Deserialize)]
pub struct Credentials {
    /// Where the gateway answers.
    pub base_url: String,
    /// The key of this shop.
    pub api_key: String,
    /// What its webhooks are signed with.
    pub webhook_secret: String,
}

impl Credentials {
    /// Reads the file.
    ///
    /// # Errors
    /// With a sentence about what is missing.
    pub fn read(file: &File) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            format!("{}: {error}; start `cargo run -- dev` in this directory, or name the file with --credentials", file.display())
        })?;
        serde_json::from_str(&text).map_err(|error| format!("{}: expected what `tidegate dev` writes: {error}", file.display()))
    }
}

/// What somebody buys.
struct Purchase {
    product: &'static str,
    amount: &'static str,
    /// The gateway's id of the order, once it has answered.
    order_id: Option<String>,
    paid: bool,
}

/// The shop's memory: in a real one, its database.
#[derive(Default)]
struct Books {
    /// By the number of the cart, which is the order's number in this shop.
    purchases: HashMap<String, Purchase>,
    /// The webhooks that were handled.
    handled: HashSet<String>,
}

/// The shop.
struct Shop {
    credentials: Credentials,
    webhook_key: Vec<u8>,
    http: reqwest::Client,
    /// Where this shop answers.
    own_url: String,
    books: Mutex<Books>,
}

/// Answers until the process ends.
///
/// # Errors
/// With a sentence, when the secret does not read or the listener breaks.
pub async fn serve(credentials: Credentials, listener: TcpListener) -> Result<(), String> {
    let own_url = format!("http://{}", listener.local_addr().map_err(|error| error.to_string())?);
    let shop = Arc::new(Shop::new(credentials, own_url)?);
    let router = Router::new()
        .route("/", get(front_page))
        .route("/buy/{product}/{cart}", post(buy))
        .route("/orders/{cart}", get(order_page))
        .route("/webhooks", post(receive))
        .with_state(shop);
    axum::serve(listener, router).await.map_err(|error| error.to_string())
}

impl Shop {
    fn new(credentials: Credentials, own_url: String) -> Result<Self, String> {
        let webhook_key = webhook::key(&credentials.webhook_secret).ok_or("expected a webhook_secret of whsec_ and base64")?;
        // Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build().map_err(|error| error.to_string())?;
        Ok(Self { credentials, webhook_key, http, own_url, books: Mutex::default() })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the order of a cart, and says where the payer pays. The cart's number is the
    /// idempotency key: a double click, or a second try after a time-out, gives the same order.
    async fn buy(&self, product: &str, cart: &str) -> Result<String, String> {
        let (name, _, amount) = PRODUCTS.into_iter().find(|(name, ..)| *name == product).ok_or("there is no such product")?;
        if cart.len() != 32 || !cart.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("there is no such cart".to_owned());
        }
        // Written down first: the first webhook may be here before the answer is.
        let held = self.hold(cart, Purchase { product: name, amount, order_id: None, paid: false });
        if held != name {
            return Err("this cart holds something else".to_owned());
        }
        let wish = json!({
            "amount": amount,
            "merchant_order_id": cart,
            "callback_url": format!("{}/webhooks", self.own_url),
            "redirect_url": format!("{}/orders/{cart}", self.own_url),
            "metadata": { "product": name },
        });
        let request = self.http.post(format!("{}/api/v1/orders", self.credentials.base_url)).header("Idempotency-Key", cart).json(&wish);
        let order = self.ask(request).await?;
        let text = |name: &str| order.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(format!("the answer has no {name}"));
        let (id, checkout_url) = (text("id")?, text("checkout_url")?);
        if let Some(purchase) = self.books().purchases.get_mut(cart) {
            purchase.order_id = Some(id);
        }
        Ok(checkout_url)
    }

    /// What a cart holds: what was put into it first, for it is known under that price.
    fn hold(&self, cart: &str, wanted: Purchase) -> &'static str {
        self.books().purchases.entry(cart.to_owned()).or_insert(wanted).product
    }

    /// Sends a request with the key. What is refused says why, in `detail`.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let answer = request.bearer_auth(&self.credentials.api_key).send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|error| error.to_string())?;
        if status.is_success() {
            return Ok(body);
        }
        Err(body.get("detail").and_then(Value::as_str).map_or_else(|| format!("the gateway answered {status}"), str::to_owned))
    }

    /// Believes a webhook that was verified, once. Several may come for one order, a late repetition
    /// even after a newer one, so being paid is never taken back here.
    fn hear(&self, event_id: String, event: &Value) {
        let mut books = self.books();
        if !books.handled.insert(event_id) {
            return;
        }
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if let Some(purchase) = books.purchases.get_mut(text("/data/merchant_order_id"))
            && text("/type") == "order.paid"
        {
            // Here what was bought is delivered.
            purchase.paid = true;
        }
    }
}

/// `POST /webhooks`: verify the raw body, then believe. 401 for what is not signed, any 2xx for what
/// was handled, now or before.
async fn receive(State(shop): State<Arc<Shop>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(event_id) = webhook::verify(&shop.webhook_key, &headers, &body, now_s()) else { return StatusCode::UNAUTHORIZED };
    let Ok(event) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    shop.hear(event_id, &event);
    StatusCode::NO_CONTENT
}

/// `POST /buy/{product}/{cart}`: to the checkout.
async fn buy(State(shop): State<Arc<Shop>>, Path((product, cart)): Path<(String, String)>) -> Response {
    match shop.buy(&product, &cart).await {
        Ok(checkout_url) => Redirect::to(&checkout_url).into_response(),
        // Pressing the button again is safe: it is the same cart.
        Err(why) => {
            (StatusCode::BAD_GATEWAY, page("Sorry", &format!("<p>The order could not be made: {}</p>", escaped(&why)))).into_response()
        }
    }
}

/// `GET /`: each button has a cart of its own.
async fn front_page() -> Response {
    let mut body = String::new();
    for (product, name, price) in PRODUCTS {
        let Some(cart) = new_cart() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        body.push_str(&format!(
            "<form method=\"post\" action=\"/buy/{product}/{cart}\"><p>{name}, {price} USDT <button>Buy</button></p></form>\n"
        ));
    }
    page("A small shop", &body).into_response()
}

/// `GET /orders/{cart}`: asks again every two seconds until it is paid.
async fn order_page(State(shop): State<Arc<Shop>>, Path(cart): Path<String>) -> Response {
    let known =
        shop.books().purchases.get(&cart).map(|purchase| (purchase.product, purchase.amount, purchase.order_id.clone(), purchase.paid));
    let Some((product, amount, order_id, paid)) = known else {
        return (StatusCode::NOT_FOUND, page("No such order", "")).into_response();
    };
    let title = format!("Your {product}, {amount} USDT");
    if paid {
        return page(&title, "<p>Paid. Thank you!</p>\n<p><a href=\"/\">Back to the shop</a></p>").into_response();
    }
    // For showing only. What is delivered is decided by the webhook.
    let order = match order_id {
        Some(id) => shop.ask(shop.http.get(format!("{}/api/v1/orders/{id}", shop.credentials.base_url))).await.unwrap_or_default(),
        None => Value::Null,
    };
    let text = |name: &str| escaped(order.get(name).and_then(Value::as_str).unwrap_or("unknown"));
    let body = format!(
        "<meta http-equiv=\"refresh\" content=\"2\">\n<p>Not paid yet: {}, {} received.</p>\n<p><a href=\"{}\">Pay</a></p>",
        text("status"),
        text("amount_received"),
        text("checkout_url"),
    );
    page(&title, &body).into_response()
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n{body}\n</html>\n"
    ))
}

/// A text that is safe in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number that nobody guesses: who knows it sees the order.
fn new_cart() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

//! `[networks]`: which chains payments are watched on, through which endpoints, and how deep they must be.

use std::num::NonZeroU32;

use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::order::Depth;
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;
use url::Url;

use super::file::{Field, Problems, Section};
use super::presets::{self, Preset};
use super::secret::{SecretText, SecretUrl};
use super::values::{self, Echo, Form, show_span};
use super::{Env, Said, headers};

/// A network that payments are watched on.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The `network` of the API.
    pub name: Network,
    /// What payers read.
    pub display_name: String,
    /// How to talk to it.
    pub kind: Kind,
    /// Where the keys of its new wallets come from: `random`, `hd` or `watch`.
    pub wallets: WalletKind,
    /// What every endpoint must answer to be the right chain.
    pub chain_id: u64,
    /// At least one, in order of preference.
    pub rpc: Vec<RpcEndpoint>,
    /// The token contract's address as it was written.
    pub token: String,
    /// The token's decimals, 0 to 36.
    pub decimals: u8,
    /// What the contract must call itself, where that is not one of the names of USDT.
    pub symbol: Option<String>,
    /// How deep money must be buried, below every tier.
    pub confirmations: Depth,
    /// More money, more confirmations: ascending in both.
    pub tiers: Vec<Tier>,
    /// Where a network that was never seen before begins.
    pub start_block: StartBlock,
    /// How often the chain is asked for a new block.
    pub poll_interval: Span,
    /// Beyond this lag the network takes no new lease.
    pub max_lag: Span,
    /// How far the chain's final head may be behind its newest block, in block time, before money
    /// waits for it whatever the terms of its order say.
    pub final_lag_max: Span,
    /// The least order that may be paid here.
    pub min_amount: Option<Amount>,
    /// The largest order that may be paid here.
    pub max_amount: Option<Amount>,
    /// A transfer above this settles only once two endpoints of different hosts show its block.
    pub agree_above: Option<Amount>,
    /// Whether what has settled is read a second time.
    pub reconcile: Reconcile,
    /// The secret of `POST /webhook/blockchain/{network}`; without it there is no such door.
    pub webhook_secret: Option<SecretText>,
    /// The signing key of an Alchemy webhook that posts to the same door.
    pub alchemy_signing_key: Option<SecretText>,
    /// The most blocks that are read at once while catching up.
    pub range_max: u32,
    /// What each endpoint may be asked in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// What each endpoint may be asked in any 24 hours.
    pub requests_per_day: Option<u64>,
}

/// Whether what has settled is read a second time, by another method, and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconcile {
    /// Every block, once it has settled.
    Settled,
    /// No block: only those that hold money of ours are read twice.
    Off,
}

/// The kinds of chain that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ethereum and its like.
    Evm,
    /// TRON.
    Tron,
}

impl Kind {
    /// The name in the configuration and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evm => "evm",
            Self::Tron => "tron",
        }
    }
}

/// One URL of a network.
#[derive(Clone, Debug)]
pub struct RpcEndpoint {
    /// Where to send requests.
    pub url: SecretUrl,
    /// Sent with each of them.
    pub headers: Vec<(String, SecretText)>,
    /// What it may be asked in a second, where that differs from the network's.
    pub requests_per_second: Option<NonZeroU32>,
    /// What it may be asked in any 24 hours, where that differs from the network's.
    pub requests_per_day: Option<u64>,
}

impl RpcEndpoint {
    const fn new(url: SecretUrl) -> Self {
        Self { url, headers: Vec::new(), requests_per_second: None, requests_per_day: None }
    }
}

/// Orders above an amount wait longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The tier is for amounts strictly above this one.
    pub above: Amount,
    /// How deep their money must be buried.
    pub depth: Depth,
}

/// Where a network that was never seen before begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartBlock {
    /// At the head of first contact.
    Latest,
    /// At this height.
    Number(u64),
}

/// More than this many blocks are not kept to judge by.
const CONFIRMATIONS_MAX: u64 = 4_000;

impl NetworkConfig {
    /// True for a network whose token is worth money.
    #[must_use]
    pub fn is_live(&self) -> bool {
        presets::LIVE_CHAINS.contains(&self.chain_id)
    }

    /// How deep the money of an order of that amount must be buried.
    #[must_use]
    pub fn depth_for(&self, amount: Amount) -> Depth {
        self.tiers.iter().rev().find(|tier| amount > tier.above).map_or(self.confirmations, |tier| tier.depth)
    }

    /// Whether an order of that amount may be paid here.
    #[must_use]
    pub fn takes(&self, amount: Amount) -> bool {
        self.min_amount.is_none_or(|min| amount >= min) && self.max_amount.is_none_or(|max| amount <= max)
    }

    /// The least depth that any amount needs here.
    #[must_use]
    pub fn shallowest(&self) -> Depth {
        self.tiers.iter().map(|tier| tier.depth).fold(self.confirmations, Ord::min)
    }

    /// The greatest depth that any amount needs here.
    #[must_use]
    pub fn deepest(&self) -> Depth {
        self.tiers.iter().map(|tier| tier.depth).fold(self.confirmations, Ord::max)
    }
}

/// The networks that the file has tables for; without any, those with a variable.
pub(super) fn networks(
    section: &mut Section<'_>,
    env: &Env<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Vec<NetworkConfig> {
    let from_file = !section.is_empty();
    let place = std::mem::take(&mut section.place);
    let section = std::mem::replace(section, Section::empty(String::new(), String::new()));
    let mut networks = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    if from_file {
        for (name, field) in section.children() {
            names.push(name);
            let place = field.place.clone();
            if let Some(mut table) = problems.keep(&place, field.into_section()) {
                networks.extend(network(name, &mut table, env, problems));
                table.finish(problems);
            }
        }
    } else {
        for provider in &PROVIDERS {
            if provider.variables.iter().any(|name| env.is_set(name)) {
                names.push(provider.preset);
                let mut table = Section::empty(format!("networks.{}", provider.preset), format!("the network {}", provider.preset));
                networks.extend(network(provider.preset, &mut table, env, problems));
            }
        }
    }
    for (index, name) in names.iter().enumerate() {
        if let Some(twin) = names.iter().take(index).find(|other| other.eq_ignore_ascii_case(name)) {
            problems.add(&place, &format!("expected names that differ by more than case, found `{twin}` and `{name}`; rename one"));
        }
    }
    warn(&networks, &names, env, warnings);
    networks
}

/// The variables that give a preset its endpoints: first one that lists URLs, then one that holds a
/// provider's key.
struct Provider {
    preset: &'static str,
    variables: [&'static str; 2],
}

const PROVIDERS: [Provider; 2] = [
    Provider { preset: "tron", variables: ["TRON_RPC_URL", "TRONGRID_API_KEY"] },
    Provider { preset: "ethereum", variables: ["ETHEREUM_RPC_URL", "INFURA_PROJECT_ID"] },
];

const TRONGRID_HEADER: &str = "TRON-PRO-API-KEY";

fn network(name: &str, table: &mut Section<'_>, env: &Env<'_>, problems: &mut Problems) -> Option<NetworkConfig> {
    if !values::is_network_name(name) {
        let problem = "expected a network's name to be 1 to 32 letters, digits, - or _, found another one; rename the table";
        problems.add(&table.place, problem);
    }
    let preset = presets::find(name);
    let mut missing: Vec<&'static str> = Vec::new();
    let mut wanted = |key: &'static str, is_there: bool| {
        if !is_there {
            missing.push(key);
        }
    };

    let kind_given = table.field("kind");
    wanted("kind", kind_given.is_some() || preset.is_some());
    let kind = kind_given
        .and_then(|field| Some((problems.keep(&field.place, field.text(&values::KIND))?, field.place)))
        .inspect(|(kind, place)| {
            if let Some(preset) = preset.filter(|preset| preset.kind != *kind) {
                let problem = format!(
                    "expected {}, as the preset `{name}` is, found {}; give the table another name",
                    preset.kind.text(),
                    kind.text()
                );
                problems.add(place, &problem);
            }
        })
        .map(|(kind, _)| kind)
        .or(preset.map(|preset| preset.kind));

    let has_chain_id = table.field("chain_id").is_some();
    wanted("chain_id", has_chain_id || preset.is_some());
    let chain_id = table.integer("chain_id", 1..=u64::MAX, problems).or(preset.filter(|_| !has_chain_id).map(|preset| preset.chain_id));
    // Another chain than the preset's has another token, and none of its endpoints.
    let preset_chain = preset.filter(|preset| chain_id.is_none_or(|chain_id| chain_id == preset.chain_id));

    let rpc = endpoints(name, preset_chain, kind, table, env, problems);
    wanted("rpc", rpc.is_some());

    let token_given = table.field("token").is_some();
    let preset_token = preset_chain.and_then(|preset| preset.token);
    wanted("token", token_given || preset_token.is_some());
    let token = table.text("token", &values::TEXT, problems).or(preset_token.map(str::to_owned));

    let decimals_given = table.field("decimals").is_some();
    let preset_decimals = preset.and_then(|preset| preset.decimals);
    wanted("decimals", decimals_given || preset_decimals.is_some());
    let decimals = table.integer("decimals", 0..=36, problems).and_then(|decimals| u8::try_from(decimals).ok()).or(preset_decimals);

    let symbol = table.text("symbol", &values::SYMBOL, problems);

    let confirmations_given = table.field("confirmations");
    wanted("confirmations", confirmations_given.is_some() || preset.is_some());
    let confirmations =
        confirmations_given.and_then(|field| problems.keep(&field.place, depth(&field))).or(preset.map(|preset| preset.confirmations));
    let tiers = tiers(confirmations, table, problems);

    let start_block = table.field("start_block").and_then(|field| problems.keep(&field.place, start_block(&field)));
    let poll_interval = preset.map_or(Span::from_secs(if kind == Some(Kind::Tron) { 3 } else { 2 }), |preset| preset.poll_interval);
    let poll_interval = table.span("poll_interval", poll_interval, Span::from_millis(10)..=Span::from_secs(3_600), problems);
    let max_lag = table.span("max_lag", Span::from_secs(120), Span::from_secs(1)..=Span::from_secs(3_650 * 86_400), problems);
    let wallets = table.text("wallets", &values::WALLETS, problems).unwrap_or(WalletKind::Random);
    if max_lag <= poll_interval {
        let (lag, poll) = (show_span(max_lag), show_span(poll_interval));
        let problem = format!(
            "expected `max_lag` to be longer than `poll_interval`, or the network would never take an order, found \"{lag}\" and \"{poll}\""
        );
        problems.add(&table.place, &problem);
    }
    let webhook_secret = table.text("webhook_secret", &values::WEBHOOK_SECRET, problems);
    let range_max = table.u32("range_max", 50, 1..=10_000, problems);
    let (requests_per_second, requests_per_day) = budget(table, problems);
    let final_lag_max = preset.map_or(Span::from_secs(if kind == Some(Kind::Tron) { 300 } else { 7_200 }), |preset| preset.final_lag_max);
    let final_lag_max = table.span("final_lag_max", final_lag_max, Span::from_secs(1)..=Span::from_secs(3_650 * 86_400), problems);
    let agree_above = table.text("agree_above", &values::AMOUNT, problems);
    let (min_amount, max_amount) =
        (table.text("min_amount", &values::AMOUNT, problems), table.text("max_amount", &values::AMOUNT, problems));
    if let (Some(min), Some(max)) = (min_amount, max_amount)
        && min > max
    {
        problems.add(&table.place, &format!("expected `max_amount` to be at least `min_amount`, {min}, found \"{max}\""));
    }
    let reconcile = table.text("reconcile", &values::RECONCILE, problems).unwrap_or(Reconcile::Settled);
    let alchemy_signing_key = table.text("alchemy_signing_key", &values::HEADER_VALUE, problems);
    if agree_above.is_some() && rpc.as_ref().is_some_and(|rpc| hosts(rpc) < 2) {
        problems.add(
            &table.place,
            "expected endpoints of at least two hosts in `rpc` for `agree_above`, found one: nothing above it would ever settle",
        );
    }
    let display_name = table
        .text("display_name", &values::DISPLAY_NAME, problems)
        .unwrap_or_else(|| preset.map_or(name, |preset| preset.display_name).to_owned());

    if !missing.is_empty() {
        problems.add(&table.place, &missing_keys(&missing, name, preset));
    }
    Some(NetworkConfig {
        name: Network::new(name),
        display_name,
        kind: kind?,
        wallets,
        chain_id: chain_id?,
        rpc: rpc?,
        token: token?,
        decimals: decimals?,
        symbol,
        confirmations: confirmations?,
        tiers,
        start_block: start_block.unwrap_or(StartBlock::Latest),
        poll_interval,
        max_lag,
        final_lag_max,
        min_amount,
        max_amount,
        agree_above,
        reconcile,
        webhook_secret,
        alchemy_signing_key,
        range_max,
        requests_per_second,
        requests_per_day,
    })
}

/// How many different hosts these endpoints are on.
fn hosts(rpc: &[RpcEndpoint]) -> usize {
    let mut hosts: Vec<&str> = rpc.iter().filter_map(|rpc| rpc.url.expose().host_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Self::Evm => "\"evm\"",
            Self::Tron => "\"tron\"",
        }
    }
}

fn missing_keys(missing: &[&str], name: &str, preset: Option<&Preset>) -> String {
    let keys: Vec<String> = missing.iter().map(|key| format!("`{key}`")).collect();
    let keys = keys.join(", ");
    let provider = PROVIDERS.iter().find(|provider| provider.preset == name);
    match (preset, provider) {
        (None, _) => match presets::nearest(name) {
            Some(nearest) => format!("missing {keys}; did you mean the preset `{nearest}`, which knows what may be left out?"),
            None => {
                format!(
                    "missing {keys}; only a table that is named like a preset ({}) may leave out what the preset knows",
                    presets::names()
                )
            }
        },
        (Some(_), Some(provider)) if missing.contains(&"rpc") => {
            format!("missing {keys}, which the preset `{name}` does not know here; for `rpc`, {} would do", provider.variables.join(" or "))
        }
        (Some(_), _) => format!("missing {keys}, which the preset `{name}` does not know here"),
    }
}

/// The endpoints from the environment, else from the file, else from a provider's key alone. `None`
/// when nobody named any.
fn endpoints(
    name: &str,
    preset: Option<&Preset>,
    kind: Option<Kind>,
    table: &mut Section<'_>,
    env: &Env<'_>,
    problems: &mut Problems,
) -> Option<Vec<RpcEndpoint>> {
    let provider = PROVIDERS.iter().find(|provider| provider.preset == name);
    let listed = table.field("rpc");
    let mut found = match (provider.and_then(|provider| env.get(provider.variables[0]).0), listed) {
        (Some(said), _) => endpoints_from_variable(&said, problems),
        (None, Some(field)) => endpoints_from_file(field, problems),
        (None, None) => match preset.map(|preset| preset.name) {
            Some("tron") if env.is_set("TRONGRID_API_KEY") => vec![endpoint("https://api.trongrid.io")?],
            Some("ethereum") => infura(&env.get("INFURA_PROJECT_ID").0?, problems).into_iter().collect(),
            _ => return None,
        },
    };
    if kind == Some(Kind::Tron)
        && let Some(key) = env.read("TRONGRID_API_KEY", &values::HEADER_VALUE, problems)
    {
        for endpoint in found.iter_mut().filter(|endpoint| is_trongrid(endpoint)) {
            if !endpoint.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRONGRID_HEADER)) {
                endpoint.headers.push((TRONGRID_HEADER.to_owned(), key.clone()));
            }
        }
    }
    Some(found)
}

fn endpoint(url: &str) -> Option<RpcEndpoint> {
    Some(RpcEndpoint::new(SecretUrl::new(Url::parse(url).ok()?)))
}

/// Only over TLS: a key is not sent in the open.
fn is_trongrid(endpoint: &RpcEndpoint) -> bool {
    let url = endpoint.url.expose();
    url.scheme() == "https" && url.host_str().is_some_and(|host| host == "trongrid.io" || host.ends_with(".trongrid.io"))
}

fn infura(said: &Said, problems: &mut Problems) -> Option<RpcEndpoint> {
    let is_id = said.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_id {
        problems
            .add(&said.place, "expected the project's id alone, found other characters (not shown); an address goes into ETHEREUM_RPC_URL");
        return None;
    }
    endpoint(&format!("https://mainnet.infura.io/v3/{}", said.text))
}

fn endpoints_from_variable(said: &Said, problems: &mut Problems) -> Vec<RpcEndpoint> {
    let urls: Vec<&str> = said.text.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        problems.add(&said.place, "expected one or more http:// or https:// URLs with commas between them, found none");
    }
    let mut found = Vec::new();
    for (index, url) in urls.into_iter().enumerate() {
        let place = format!("{}, URL {}", said.place, index.saturating_add(1));
        let url = problems.keep(&place, values::RPC_URL.read(url));
        found.extend(url.map(RpcEndpoint::new));
    }
    found
}

fn endpoints_from_file(field: Field<'_>, problems: &mut Problems) -> Vec<RpcEndpoint> {
    let place = field.place.clone();
    let Some(list) = problems.keep(&place, field.into_list("a list of URLs such as [\"https://node.example\"]")) else { return Vec::new() };
    if list.is_empty() {
        problems.add(&place, "expected at least one URL, found an empty list");
    }
    let mut found = Vec::new();
    for entry in list {
        let place = entry.place.clone();
        if entry.is_text() {
            let url = problems.keep(&place, entry.text(&values::RPC_URL));
            found.extend(url.map(RpcEndpoint::new));
        } else {
            let wrong = entry.wrong("a URL in quotes, or { url = \"…\", headers = { NAME = \"…\" } }", Echo::Hide);
            let Some(mut table) = problems.keep(&place, entry.into_section().map_err(|_| wrong)) else { continue };
            if table.field("url").is_none() {
                problems.add(&place, "missing `url`");
            }
            let url = table.text("url", &values::RPC_URL, problems);
            let headers = headers(&mut table, problems);
            let (requests_per_second, requests_per_day) = budget(&mut table, problems);
            table.finish(problems);
            found.extend(url.map(|url| RpcEndpoint { url, headers, requests_per_second, requests_per_day }));
        }
    }
    found
}

/// What an endpoint may be asked in a second and in a day.
fn budget(table: &mut Section<'_>, problems: &mut Problems) -> (Option<NonZeroU32>, Option<u64>) {
    let per_second = table.integer("requests_per_second", 1..=1_000_000, problems);
    let per_day = table.integer("requests_per_day", 1..=u64::MAX, problems);
    (per_second.and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?)), per_day)
}

fn depth(field: &Field<'_>) -> Result<Depth, String> {
    const FORM: Form<Depth> = Form {
        expected: "a number of blocks from 1 to 4000, or \"final\"",
        echo: Echo::Quote,
        parse: |text| if text == "final" { Ok(Depth::Final) } else { Err(values::Found::Text) },
    };
    if !field.is_integer() {
        return field.text(&FORM);
    }
    let blocks = field.integer(1..=CONFIRMATIONS_MAX).ok().and_then(|blocks| u32::try_from(blocks).ok());
    blocks.map(Depth::Blocks).ok_or_else(|| field.wrong(FORM.expected, Echo::Quote))
}

fn start_block(field: &Field<'_>) -> Result<StartBlock, String> {
    const FORM: Form<StartBlock> = Form {
        expected: "a block's number, or \"latest\"",
        echo: Echo::Quote,
        parse: |text| if text == "latest" { Ok(StartBlock::Latest) } else { Err(values::Found::Text) },
    };
    if !field.is_integer() {
        return field.text(&FORM);
    }
    field.integer(0..=u64::MAX).map(StartBlock::Number).map_err(|_| field.wrong(FORM.expected, Echo::Quote))
}

fn tiers(confirmations: Option<Depth>, table: &mut Section<'_>, problems: &mut Problems) -> Vec<Tier> {
    let Some(field) = table.field("confirmation_tiers") else { return Vec::new() };
    let place = field.place.clone();
    let expected = "tables: [[networks.NAME.confirmation_tiers]] with `above` and `confirmations`";
    let list = problems.keep(&place, field.into_list(expected)).unwrap_or_default();
    let mut tiers: Vec<Tier> = Vec::new();
    for entry in list {
        let place = entry.place.clone();
        let Some(mut tier) = problems.keep(&place, entry.into_section()) else { continue };
        let above = tier.text("above", &values::AMOUNT, problems);
        let depth = tier.field("confirmations").and_then(|field| problems.keep(&field.place, depth(&field)));
        if tier.field("above").is_none() || tier.field("confirmations").is_none() {
            problems.add(&place, "missing `above` or `confirmations`; a tier needs both");
        }
        tier.finish(problems);
        tiers.extend(above.zip(depth).map(|(above, depth)| Tier { above, depth }));
    }
    tiers.sort_by_key(|tier| tier.above);
    let mut last: Option<(Option<Amount>, Depth)> = confirmations.map(|depth| (None, depth));
    for tier in &tiers {
        if last.is_some_and(|(above, depth)| above == Some(tier.above) || tier.depth < depth) {
            let problem = format!(
                "expected each tier to start above the one before and to ask for at least as many confirmations, found one above \
                 \"{}\" that does not",
                tier.above
            );
            problems.add(&place, &problem);
        }
        last = Some((Some(tier.above), tier.depth));
    }
    tiers
}

/// What is set and has no effect, and what is allowed and looks like a mistake.
fn warn(networks: &[NetworkConfig], names: &[&str], env: &Env<'_>, warnings: &mut Vec<String>) {
    for Provider { preset, variables } in &PROVIDERS {
        for variable in variables.iter().filter(|name| env.is_set(name) && !names.contains(preset)) {
            let tron_key = *variable == "TRONGRID_API_KEY" && networks.iter().any(|network| network.kind == Kind::Tron);
            if !tron_key {
                warnings.push(format!(
                    "{variable} is set, but the configuration names its networks and `{preset}` is not one of them; add [networks.{preset}] to use it"
                ));
            }
        }
    }
    let tron = |network: &&NetworkConfig| network.kind == Kind::Tron;
    let trongrid = networks.iter().filter(tron).any(|network| network.rpc.iter().any(is_trongrid));
    if env.is_set("TRONGRID_API_KEY") && networks.iter().any(|network| tron(&network)) && !trongrid {
        warnings.push("TRONGRID_API_KEY is set, but no endpoint is https and of trongrid.io, so it is sent nowhere".to_owned());
    }
    let ethereum = networks.iter().find(|network| network.name.as_str() == "ethereum");
    let infura = |endpoint: &RpcEndpoint| endpoint.url.expose().host_str() == Some("mainnet.infura.io");
    if env.is_set("INFURA_PROJECT_ID") && ethereum.is_some_and(|network| !network.rpc.iter().any(infura)) {
        warnings.push("INFURA_PROJECT_ID is set, but the endpoints of `ethereum` are named elsewhere, so it is not used".to_owned());
    }
    for (index, network) in networks.iter().enumerate() {
        let same = |other: &&NetworkConfig| {
            other.kind == network.kind && other.chain_id == network.chain_id && other.token.eq_ignore_ascii_case(&network.token)
        };
        if let Some(twin) = networks.iter().take(index).find(same) {
            warnings.push(format!(
                "`{}` and `{}` have the same chain id and token; on one chain, one of them is enough",
                twin.name, network.name
            ));
        }
    }
}

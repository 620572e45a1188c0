//! A configuration as a whole: where its values come from, and what is said when it is wrong.

use std::collections::HashMap;
use std::num::NonZeroU32;

use tidegate_rules::order::Depth;

use super::*;

const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config.example.toml"));

/// Loads `file` with an environment of `NAME=value` lines.
fn load(env: &str, file: &str) -> Result<Config, ConfigError> {
    load_with(Overrides::default(), env, file)
}

fn load_with(flags: Overrides, env: &str, file: &str) -> Result<Config, ConfigError> {
    let lines = env.lines().map(str::trim).filter(|line| !line.is_empty());
    let variables: HashMap<&str, &str> = lines.map(|line| line.split_once('=').unwrap()).collect();
    let lookup = |name: &str| {
        assert!(VARIABLES.contains(&name), "{name} is not among VARIABLES");
        variables.get(name).map(|value| (*value).to_owned())
    };
    Config::load(Sources { flags, env: &lookup, file: Some((Path::new(DEFAULT_FILE), file)) })
}

#[track_caller]
fn problems(env: &str, file: &str) -> Vec<String> {
    load(env, file).unwrap_err().problems().to_vec()
}

/// As [`Config::from_process`], with an environment of one `NAME=value` line at most.
fn read(env: &str, config_path: Option<&Path>) -> Result<Config, ConfigError> {
    let (set, value) = env.split_once('=').unwrap_or_default();
    Config::from_files(Overrides::default(), config_path, &|name| (name == set).then(|| value.to_owned()))
}

/// The one problem there is.
#[track_caller]
fn problem(env: &str, file: &str) -> String {
    let problems = problems(env, file);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

/// A complete table with some keys changed.
fn anvil(changes: &str) -> String {
    let mut keys = vec![
        ("kind", "\"evm\""),
        ("chain_id", "31337"),
        ("rpc", "[\"http://127.0.0.1:8545\"]"),
        ("token", "\"0x5FbDB2315678afecb367f032d93F642f64180aa3\""),
        ("decimals", "6"),
        ("confirmations", "3"),
    ];
    for change in changes.split(';').map(str::trim).filter(|change| !change.is_empty()) {
        let (key, value) = change.split_once('=').unwrap();
        keys.retain(|(name, _)| *name != key.trim());
        if !value.trim().is_empty() {
            keys.push((key.trim(), value.trim()));
        }
    }
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!("[networks.anvil]\n{}", lines.concat())
}

fn names(config: &Config) -> Vec<&str> {
    config.networks.iter().map(|network| network.name.as_str()).collect()
}

fn urls(network: &NetworkConfig) -> Vec<&str> {
    network.rpc.iter().map(|endpoint| endpoint.url.expose().as_str()).collect()
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

#[test]
fn nothing_at_all_is_the_contracts_defaults() {
    let config = load("", "").unwrap();
    assert_eq!(config.database.url.to_string(), "sqlite://./usdt_payments.db");
    let server = Server {
        listen: "127.0.0.1:8001".parse().unwrap(),
        public_url: None,
        tls: None,
        redirect_listen: None,
        trusted_proxies: vec![],
        proxy_header: ProxyHeader::XForwarded,
        slow_request: Span::from_secs(2),
    };
    assert_eq!(config.server, server);
    assert_eq!(config.database.slow_query, Span::from_secs(1));
    assert_eq!(config.log, Log { level: "info".into(), format: LogFormat::Pretty });
    assert_eq!(config.metrics, Metrics { enabled: true, addr: None });
    assert_eq!(
        config.orders,
        Orders {
            expires_in: Span::from_secs(1_800),
            min_expires_in: Span::from_secs(60),
            min_amount: amount("1"),
            underpayment_tolerance: Amount::ZERO,
            late_window: Span::from_secs(86_400),
            accept_late: true,
        }
    );
    assert_eq!(
        config.pool,
        Pool {
            batch_size: 100,
            max_concurrent: 10,
            name_template: "{network}_wallet_{index:04}".into(),
            low_watermark: 20,
            max_wallets: 1_000_000,
            cooldown: Span::from_secs(3_600),
            dust_below: amount("0.01"),
        }
    );
    assert_eq!(config.webhooks, Webhooks { allow_private_targets: false });
    assert_eq!(config.limits, Limits { requests_per_second: 1_000, burst: 2_000, concurrent_requests: 1_024 });
    assert!(config.networks.is_empty() && config.warnings.is_empty());
    assert!(config.master_key.is_none() && config.salt.is_none() && config.redis_url.is_none());
    assert!(config.require_networks().unwrap_err().to_string().contains("TRON_RPC_URL"));
}

#[test]
fn limits_are_never_nothing() {
    let config = load("", "[limits]\nrequests_per_second = 6000\nburst = 1\nconcurrent_requests = 8").unwrap();
    assert_eq!(config.limits, Limits { requests_per_second: 6_000, burst: 1, concurrent_requests: 8 });
    for key in ["requests_per_second", "burst", "concurrent_requests"] {
        let error = load("", &format!("[limits]\n{key} = 0")).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("a whole number from 1"), "{error}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "
        [server]
        listen = '127.0.0.1:3'
        public_url = 'https://file.example'
        [log]
        level = 'error'
        format = 'json'
        [database]
        url = 'sqlite://file.db'";
    let env = "
        LISTEN_ADDR=127.0.0.1:2
        PUBLIC_URL=https://env.example
        LOG_LEVEL=WARNING
        LOG_FORMAT=pretty
        DATABASE_URL=sqlite+aiosqlite:///./env.db";
    let flags = Overrides {
        listen: Some("127.0.0.1:1".into()),
        public_url: Some("https://flag.example".into()),
        database_url: Some("sqlite:flag.db".into()),
        log_level: Some("debug".into()),
        log_format: Some("json".into()),
    };
    let show = |config: Config| {
        let Config { server, log, database, .. } = config;
        let host = server.public_url.unwrap().host_str().unwrap().to_owned();
        format!("{} {host} {} {:?} {}", server.listen.port(), log.level, log.format, database.url)
    };
    assert_eq!(show(load("", file).unwrap()), "3 file.example error Json sqlite://file.db");
    assert_eq!(show(load(env, file).unwrap()), "2 env.example warn Pretty sqlite://./env.db");
    assert_eq!(show(load_with(flags, env, file).unwrap()), "1 flag.example debug Json sqlite://flag.db");
    // A variable that is set to nothing is not set.
    assert_eq!(load("LISTEN_ADDR= \nWALLET_MASTER_KEY=", file).unwrap().server.listen.port(), 3);
}

#[test]
fn variables_alone_make_networks() {
    let table = "
        TRON_RPC_URL=http://a:8090, http://b:8090,  | tron http://a:8090/ http://b:8090/
        TRONGRID_API_KEY=key                        | tron https://api.trongrid.io/ (1 header)
        INFURA_PROJECT_ID=0a1b                      | ethereum https://mainnet.infura.io/v3/0a1b
        ETHEREUM_RPC_URL=https://x.example/k        | ethereum https://x.example/k
        DATABASE_URL=sqlite://x.db                  |";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (env, expected) = line.split_once('|').unwrap();
        let config = load(env.trim(), "[orders]\nmin_amount = \"2\"").unwrap();
        let show = |network: &NetworkConfig| {
            let headers = network.rpc.iter().map(|endpoint| endpoint.headers.len()).sum::<usize>();
            let headers = if headers > 0 { format!(" ({headers} header)") } else { String::new() };
            format!("{} {}{headers}", network.name, urls(network).join(" "))
        };
        let found: Vec<String> = config.networks.iter().map(show).collect();
        assert_eq!(found.join("; "), expected.trim(), "{env}");
    }

    let all = "TRONGRID_API_KEY=key\nTRON_RPC_URL=https://nile.trongrid.io,https://trongrid.io.evil.example,http://api.trongrid.io\n\
               ETHEREUM_RPC_URL=http://e\nINFURA_PROJECT_ID=i";
    let config = load(all, "").unwrap();
    assert_eq!(names(&config), ["tron", "ethereum"]);
    let keys: Vec<usize> = config.networks[0].rpc.iter().map(|endpoint| endpoint.headers.len()).collect();
    assert_eq!(keys, [1, 0, 0], "the key goes to TronGrid alone, and only over TLS");
    assert_eq!(config.networks[0].rpc[0].headers[0].0, "TRON-PRO-API-KEY");
    assert_eq!(config.networks[0].rpc[0].headers[0].1.expose(), "key");
    assert_eq!(urls(&config.networks[1]), ["http://e/"]);
    assert_eq!(config.warnings, ["INFURA_PROJECT_ID is set, but the endpoints of `ethereum` are named elsewhere, so it is not used"]);
}

#[test]
fn tables_decide_once_there_is_one() {
    let file = format!("{}\n[networks.tron]\n", anvil(""));
    let config = load("TRON_RPC_URL=http://t\nETHEREUM_RPC_URL=http://e", &file).unwrap();
    assert_eq!(names(&config), ["anvil", "tron"], "in the order of the file");
    assert_eq!(
        config.warnings,
        [
            "ETHEREUM_RPC_URL is set, but the configuration names its networks and `ethereum` is not one of them; add [networks.ethereum] to use it"
        ]
    );
    let config = load("TRON_RPC_URL=http://env", "[networks.tron]\nrpc = [\"http://file\"]").unwrap();
    assert_eq!(urls(&config.networks[0]), ["http://env/"], "the environment wins");
    let config = load("TRONGRID_API_KEY=k", "[networks.tron]\nrpc = [\"http://file\"]").unwrap();
    assert_eq!(urls(&config.networks[0]), ["http://file/"], "a key is no endpoint");
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert_eq!(names(&load("TRON_RPC_URL=http://t", "[networks]").unwrap()), ["tron"], "no table in it");
}

#[test]
fn presets_are_complete() {
    // Name, kind, chain id, decimals, confirmations, poll interval, start of the token.
    let table = "
        tron        Tron 728126428   6  Blocks(19)  3s TR7NHqje
        nile        Tron 3448148188  6  Blocks(19)  3s TXYZopYR
        shasta      Tron 2494104990  6  Blocks(19)  3s TG3XXyEx
        ethereum    Evm  1           6  Blocks(12)  4s 0xdAC17F
        bsc         Evm  56          18 Final       2s 0x55d398
        polygon     Evm  137         6  Final       2s 0xc2132D
        arbitrum    Evm  42161       6  Blocks(300) 2s 0xFd086b
        optimism    Evm  10          6  Blocks(30)  2s 0x94b008
        avalanche   Evm  43114       6  Final       2s 0x970223
        base        Evm  8453        6  Blocks(30)  2s 0xfde4C9";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let expected = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = expected.split(' ').next().unwrap();
        let config = load("", &format!("[networks.{name}]\nrpc = [\"http://node\"]")).unwrap();
        let network = &config.networks[0];
        let NetworkConfig { name, kind, chain_id, token, decimals, confirmations, poll_interval, .. } = network;
        let (poll, token) = (show_span(*poll_interval), &token[..8]);
        assert_eq!(format!("{name} {kind:?} {chain_id} {decimals} {confirmations:?} {poll} {token}"), expected);
        assert_eq!((network.max_lag, network.start_block, network.tiers.len()), (Span::from_secs(120), StartBlock::Latest, 0));
        assert!(network.display_name.starts_with(|c: char| c.is_uppercase()));
    }
    assert_eq!(
        problem("", "[networks.sepolia]\nrpc = [\"http://node\"]"),
        "`networks.sepolia` in tidegate.toml, line 1: missing `token`, `decimals`, which the preset `sepolia` does not know here"
    );
    let own = "[networks.sepolia]\nrpc = [\"http://node\"]\ntoken = \"0x01\"\ndecimals = 18\nconfirmations = \"final\"\nrange_max = 9";
    let config = load("", own).unwrap();
    let network = &config.networks[0];
    assert_eq!((network.decimals, network.confirmations, network.range_max), (18, Depth::Final, 9));
    assert_eq!(
        problem("", "[networks.tron]"),
        "`networks.tron` in tidegate.toml, line 1: missing `rpc`, which the preset `tron` does not know here; \
         for `rpc`, TRON_RPC_URL or TRONGRID_API_KEY would do"
    );
}

#[test]
fn a_preset_on_another_chain_keeps_no_token_and_no_endpoint() {
    let other = "[networks.ethereum]\nchain_id = 31337\n";
    assert!(problem("INFURA_PROJECT_ID=x", other).contains("missing `rpc`, `token`"));
    let config = load("ETHEREUM_RPC_URL=http://e", &format!("{other}token = \"0x01\"")).unwrap();
    assert_eq!((config.networks[0].chain_id, config.networks[0].token.as_str()), (31_337, "0x01"));
    assert_eq!(
        problem("TRON_RPC_URL=http://t", "[networks.tron]\nkind = \"evm\""),
        "`networks.tron.kind` in tidegate.toml, line 2: expected \"tron\", as the preset `tron` is, found \"evm\"; give the table another name"
    );
}

#[test]
fn other_names_say_everything_themselves() {
    let config = load("", &anvil("confirmations = 'final'; start_block = 17; webhook_secret = 'whsec_MDEyMzQ1Njc4OWFiY2RlZg=='")).unwrap();
    let network = &config.networks[0];
    assert_eq!((network.name.as_str(), network.display_name.as_str()), ("anvil", "anvil"));
    assert_eq!((network.confirmations, network.start_block), (Depth::Final, StartBlock::Number(17)));
    assert_eq!((network.poll_interval, network.requests_per_second), (Span::from_secs(2), None));
    assert_eq!(network.webhook_secret.as_ref().unwrap().expose(), "whsec_MDEyMzQ1Njc4OWFiY2RlZg==");
    assert_eq!(
        problem("", "\n[networks.anvil]\nkind = \"evm\"\nrpc = [\"http://x\"]"),
        "`networks.anvil` in tidegate.toml, line 2: missing `chain_id`, `token`, `decimals`, `confirmations`; only a table that is \
         named like a preset (tron, nile, shasta, ethereum, sepolia, bsc, polygon, arbitrum, optimism, avalanche, base) may leave out \
         what the preset knows"
    );
}

#[test]
fn a_misspelt_preset_is_recognised() {
    for (name, preset) in [("etherum", "ethereum"), ("TRON", "tron"), ("arbitum", "arbitrum")] {
        let found = problem("", &format!("[networks.{name}]\nrpc = [\"http://x\"]"));
        assert!(found.contains(&format!("did you mean the preset `{preset}`")), "{found}");
    }
}

#[test]
fn endpoints_have_headers_and_budgets() {
    let rpc = "rpc = ['https://a.example', { url = 'https://b.example', headers = { X-Key = 'k', Other = 'o' } }]";
    let config = load("", &anvil(&format!("{rpc}; requests_per_second = 15; requests_per_day = 100_000"))).unwrap();
    let network = &config.networks[0];
    assert_eq!(urls(network), ["https://a.example/", "https://b.example/"]);
    let headers: Vec<&str> = network.rpc[1].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(headers, ["X-Key", "Other"]);
    assert_eq!((network.requests_per_second.map(NonZeroU32::get), network.requests_per_day), (Some(15), Some(100_000)));

    let own = "[networks.tron]\nrpc = [{ url = 'https://api.trongrid.io', headers = { tron-pro-api-key = 'mine' } }]";
    let config = load("TRONGRID_API_KEY=k", own).unwrap();
    assert_eq!(config.networks[0].rpc[0].headers.len(), 1, "the file's own key stays");
}

#[test]
fn more_money_waits_longer() {
    let tier = |above: &str, depth: &str| format!("[[networks.anvil.confirmation_tiers]]\nabove = \"{above}\"\nconfirmations = {depth}\n");
    let file = format!("{}{}{}", anvil(""), tier("10000", "\"final\""), tier("100", "6"));
    let config = load("", &file).unwrap();
    let table = "
        0.000001        Blocks(3)
        100             Blocks(3)
        100.000001      Blocks(6)
        10000           Blocks(6)
        10000.000001    Final
        9000000000000   Final";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (sum, expected) = line.split_once(char::is_whitespace).unwrap();
        assert_eq!(format!("{:?}", config.networks[0].depth_for(amount(sum))), expected.trim(), "{sum}");
    }
    let place = "`networks.anvil.confirmation_tiers` in tidegate.toml, line 8";
    for (tiers, above) in [
        (tier("100", "2"), "100.000000"),
        (format!("{}{}", tier("100", "6"), tier("200", "5")), "200.000000"),
        (format!("{}{}", tier("100", "\"final\""), tier("200", "5")), "200.000000"),
        (format!("{}{}", tier("100", "6"), tier("100.0", "7")), "100.000000"),
    ] {
        assert_eq!(
            problem("", &format!("{}{tiers}", anvil(""))),
            format!(
                "{place}: expected each tier to start above the one before and to ask for at least as many confirmations, \
                 found one above \"{above}\" that does not"
            )
        );
    }
}

#[test]
fn a_key_that_is_not_known_is_named_with_the_nearest_one() {
    // The file on one line, ` / ` between lines; the key; what is advised.
    let table = r#"
        [orders] / expire_in = "1h"         | `orders.expire_in` in tidegate.toml, line 2: did you mean `expires_in`?
        [orders] / Accept_Late = true       | `orders.Accept_Late` in tidegate.toml, line 2: did you mean `accept_late`?
        [ordrs]                             | `ordrs` in tidegate.toml, line 1: did you mean `orders`?
        [network.tron]                      | `network` in tidegate.toml, line 1: did you mean `networks`?
        [pool] / # / batchsize = 5          | `pool.batchsize` in tidegate.toml, line 3: did you mean `batch_size`?
        [pool] / min_amount = "5"           | `pool.min_amount` in tidegate.toml, line 2: did you mean `min_amount` in [orders]?
        accept_late = true                  | `accept_late` in tidegate.toml, line 1: did you mean `accept_late` in [orders]?
        [webhooks] / x = 1                  | `webhooks.x` in tidegate.toml, line 2: expected one of `allow_private_targets`
        [log] / colour = 1                  | `log.colour` in tidegate.toml, line 2: expected one of `format`, `level`
        database_url = "sqlite://x"         | `database_url` in tidegate.toml, line 1: it is `url` in [database]
        redis_url = "redis://x"             | `redis_url` in tidegate.toml, line 1: set the environment variable REDIS_URL
        [server.tls] / cert = "x"           | `server.tls` in tidegate.toml, line 1: they are `tls_cert` and `tls_key` in [server], each the name of a file in PEM
        WALLET_MASTER_KEY = "x"             | `WALLET_MASTER_KEY` in tidegate.toml, line 1: it does not belong into a file of settings; set WALLET_MASTER_KEY or WALLET_MASTER_KEY_FILE"#;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (file, expected) = line.split_once('|').unwrap();
        assert_eq!(problem("", &file.replace(" / ", "\n")), format!("unknown key {}", expected.trim()), "{file}");
    }
    assert_eq!(
        problem("", &anvil("confirmation = 3")),
        "unknown key `networks.anvil.confirmation` in tidegate.toml, line 8: did you mean `confirmations`?"
    );
    assert_eq!(
        problem("", &anvil("rpc = [{ url = 'http://x', header = {} }]")),
        "unknown key `networks.anvil.rpc[0].header` in tidegate.toml, line 7: did you mean `headers`?"
    );
    assert_eq!(
        problem("", &format!("{}[[networks.anvil.confirmation_tiers]]\nabove = '1'\nconfirmations = 9\ndepth = 1", anvil(""))),
        "unknown key `networks.anvil.confirmation_tiers[0].depth` in tidegate.toml, line 11: expected one of `above`, `confirmations`"
    );
}

#[test]
fn wrong_values_say_what_was_expected_and_found() {
    // Section; the line at fault; the end of the sentence.
    let table = r#"
        orders   | expires_in = 30         | a length of time: a whole number and a unit (ms, s, m, h or d) such as "30m", at most "3650d", found the number 30
        orders   | expires_in = "1.5h"     | such as "30m", at most "3650d", found the text "1.5h"
        orders   | expires_in = "8d"       | expected from "1s" to "7d", found "8d"
        orders   | expires_in = "0s"       | expected from "1s" to "7d", found "0ms"
        orders   | min_amount = 1          | expected an amount in quotes such as "12.5", with at most 6 fraction digits and at most 9000000000000, found the number 1
        orders   | min_amount = 0.5        | and at most 9000000000000, found the number 0.5
        orders   | min_amount = "1,5"      | and at most 9000000000000, found the text "1,5"
        orders   | accept_late = "yes"     | expected true or false, found the text "yes"
        pool     | batch_size = 0          | expected a whole number from 1 to 1000, found the number 0
        pool     | batch_size = -1         | expected a whole number from 1 to 1000, found the number -1
        pool     | batch_size = 1.0        | expected a whole number from 1 to 1000, found the number 1.0
        pool     | low_watermark = "20"    | expected a whole number from 0 to 1000000, found the text "20"
        pool     | cooldown = true         | at most "3650d", found true
        pool     | cooldown = 12:00:00     | at most "3650d", found a date or time without quotes
        pool     | name_template = "{n}"   | expected 1 to 64 characters with {index} or {index:04} among them, and perhaps {network}, found the text "{n}"
        server   | listen = "8001"         | expected an address and a port such as "127.0.0.1:8001" or "[::1]:8001", found the text "8001"
        server   | public_url = "pay.example" | such as "https://pay.example.com", without a path, found a text without a scheme (not shown)
        server   | trusted_proxies = "x"   | expected a list such as ["127.0.0.1", "10.0.0.0/8"], found a text (not shown)
        log      | level = "loud"          | expected error, warn, info, debug or trace, also per target, such as "info,hyper_util=warn", found the text "loud"
        database | url = 5                 | or postgres://USER:PASSWORD@HOST/NAME, found a number (not shown)
        database | replica_url = "sqlite://x.db" | expected postgres://USER:PASSWORD@HOST/NAME of a read replica of the database, found the address of a SQLite file, which has no replicas
        server   | slow_request = "6m"     | expected from "1ms" to "5m", found "6m"
        database | slow_query = "1h"       | expected from "1ms" to "5m", found "1h"
        database | pool_timeout = "1h"     | expected from "100ms" to "5m", found "1h"
        webhooks | allow_private_targets = 1 | expected true or false, found the number 1"#;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parts: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
        let [section, setting, end] = parts[..] else { panic!("{line}") };
        let found = problem("", &format!("[{section}]\n{setting}"));
        let key = setting.split(' ').next().unwrap();
        assert!(found.starts_with(&format!("`{section}.{key}` in tidegate.toml, line 2: expected ")), "{found}");
        assert!(found.ends_with(end), "{found}\n{end}");
    }
    let config = load("", "[database]\nreplica_url = 'postgres://u:hunter2@r/x'").unwrap();
    assert!(config.database.replica.is_none(), "the replica of another database");
    assert_eq!(config.warnings, ["database.replica_url has no effect: a SQLite file has no replicas"]);
    assert_eq!(problem("", "orders = 3"), "`orders` in tidegate.toml, line 1: expected a table, found a number (not shown)");
    assert_eq!(
        problem("", "[server]\ntrusted_proxies = [\n'127.0.0.1',\n'lan']"),
        "`server.trusted_proxies[1]` in tidegate.toml, line 4: expected an IP address or range such as \"127.0.0.1\" or \"10.0.0.0/8\", found the text \"lan\""
    );
}

#[test]
fn wrong_networks_say_what_was_expected_and_found() {
    let table = r#"
        kind = "solana"         | expected "evm" or "tron", found the text "solana"
        chain_id = 0            | expected a whole number of at least 1, found the number 0
        chain_id = "0x1"        | expected a whole number of at least 1, found the text "0x1"
        decimals = 37           | expected a whole number from 0 to 36, found the number 37
        confirmations = 0       | expected a number of blocks from 1 to 4000, or "final", found the number 0
        confirmations = "safe"  | expected a number of blocks from 1 to 4000, or "final", found the text "safe"
        confirmations = 1.5     | expected a number of blocks from 1 to 4000, or "final", found the number 1.5
        start_block = -1        | expected a block's number, or "latest", found the number -1
        start_block = "now"     | expected a block's number, or "latest", found the text "now"
        rpc = []                | expected at least one URL, found an empty list
        rpc = "http://x"        | expected a list of URLs such as ["https://node.example"], found a text (not shown)
        poll_interval = "0s"    | expected from "10ms" to "1h", found "0ms"
        token = " "             | expected a text that is not empty, found the text " "
        display_name = ""       | expected a name of 1 to 40 characters, found the text ""
        range_max = 0           | expected a whole number from 1 to 10000, found the number 0
        requests_per_day = 0    | expected a whole number of at least 1, found the number 0
        webhook_secret = "x"    | expected a Standard Webhooks secret: whsec_ and then base64 of at least 16 bytes, found another text (not shown)"#;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (change, expected) = line.split_once('|').unwrap();
        let key = change.split(' ').next().unwrap();
        let found = problem("", &anvil(change));
        let (place, problem) = found.split_once(": ").unwrap();
        assert!(place.starts_with(&format!("`networks.anvil.{key}` in tidegate.toml, line ")), "{found}");
        assert_eq!(problem, expected.trim());
    }
    assert_eq!(
        problem("", &anvil("rpc = ['http://a', 'ws://b']")),
        "`networks.anvil.rpc[1]` in tidegate.toml, line 7: expected an http:// or https:// URL, found one that starts with ws://"
    );
    assert_eq!(
        problem("", &anvil("rpc = [7]")),
        "`networks.anvil.rpc[0]` in tidegate.toml, line 7: expected a URL in quotes, or { url = \"…\", headers = { NAME = \"…\" } }, \
         found a number (not shown)"
    );
    assert!(problem("", &anvil("rpc = [{ headers = {} }]")).ends_with("missing `url`"));
    assert!(problem("", &anvil("rpc = [{ url = 'http://x', headers = { 'a b' = 'x' } }]")).contains("a name that HTTP allows"));
    assert!(problem("", &anvil("max_lag = '2s'")).contains("expected `max_lag` to be longer than `poll_interval`"));
    assert!(problem("", &anvil("").replace("networks.anvil", "networks.'my chain'")).contains("rename the table"));
    let twice = format!("{}{}", anvil(""), anvil("").replace("networks.anvil", "networks.Anvil"));
    assert_eq!(
        problem("", &twice),
        "`networks` in tidegate.toml, line 1: expected names that differ by more than case, found `anvil` and `Anvil`; rename one"
    );
    let same = format!("{}{}", anvil(""), anvil("").replace("networks.anvil", "networks.second"));
    assert_eq!(load("", &same).unwrap().warnings.len(), 1);
    assert_eq!(
        problem("ETHEREUM_RPC_URL=http://a,ftp://b", ""),
        "ETHEREUM_RPC_URL, URL 2: expected an http:// or https:// URL, found one that starts with ftp://"
    );
    assert!(problem("TRON_RPC_URL=,", "").ends_with("found none"));
    assert!(problem("INFURA_PROJECT_ID=https://mainnet.infura.io/v3/k", "").contains("goes into ETHEREUM_RPC_URL"));
}

#[test]
fn values_must_fit_together() {
    assert_eq!(
        problem("", "\n[orders]\nexpires_in = '30s'"),
        "`orders` in tidegate.toml, line 2: expected `min_expires_in` to be at most `expires_in`, found \"1m\" and \"30s\"; \
         lower the first or raise the second"
    );
    assert_eq!(
        problem("", "[orders]\nunderpayment_tolerance = '1'"),
        "`orders` in tidegate.toml, line 1: expected `underpayment_tolerance` to be below `min_amount`, or the smallest orders would be \
         paid by nothing, found \"1.000000\" and \"1.000000\"; lower the first or raise the second"
    );
    assert!(problem("", "[orders]\nmin_amount = '0'").ends_with("expected `min_amount` to be at least \"0.000001\", found \"0\""));
    assert!(load("", "[orders]\nmin_expires_in = '1s'\nexpires_in = '7d'\nmin_amount = '0.000001'").is_ok());
}

#[test]
fn all_problems_are_told_at_once() {
    let error = load("LISTEN_ADDR=here\nREDIS_URL=cache", "[orders]\nmin_amount = 1\nlate = 'x'").unwrap_err();
    assert_eq!(error.problems().len(), 4, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("4 things in the configuration need a change:\n  - LISTEN_ADDR: expected an address"), "{text}");
    assert!(text.contains("\n  - unknown key `orders.late` in tidegate.toml, line 3: "), "{text}");
}

#[test]
fn bad_syntax_has_a_line_and_none_of_the_text() {
    let table = [
        ("[orders]\nexpires_in = hunter2", 2),
        ("[orders\nx = 1", 1),
        ("a = 'hunter2", 1),
        ("\n\na = 'hunter2' 'x'", 3),
        ("[networks.x]\nrpc = ['https://hunter2'\n", 2),
        ("a = 1\na = 2", 2),
    ];
    for (file, line) in table {
        let found = problem("", file);
        assert!(found.starts_with(&format!("tidegate.toml, line {line}: this is not TOML: ")), "{file}: {found}");
        assert!(!found.contains("hunter2") && !found.contains('\n'), "{found}");
    }
}

#[test]
fn a_listener_in_public_needs_https() {
    let table = "
        127.0.0.1:8001      -                       fine
        127.0.0.1:8001      http://x.example        fine
        [::1]:8001          -                       fine
        [::ffff:127.0.0.1]:80 -                     fine
        127.9.9.9:0         -                       fine
        0.0.0.0:8001        https://x.example       fine
        0.0.0.0:8001        -                       none
        [::]:8001           -                       none
        192.168.1.5:8001    -                       none
        0.0.0.0:8001        http://x.example:81     http://x.example:81";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let [listen, url, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let url = if url == "-" { String::new() } else { format!("\nPUBLIC_URL={url}") };
        let found = load(&format!("LISTEN_ADDR={listen}{url}"), "").unwrap().refuse_insecure();
        match found {
            Ok(()) => assert_eq!(expected, "fine", "{line}"),
            Err(error) => assert_eq!(
                error.to_string(),
                format!(
                    "LISTEN_ADDR: other machines can reach {listen}, so expected tls_cert and tls_key or an https PUBLIC_URL, found \
                     {expected}; name a certificate in [server], or put a proxy that ends TLS in front and set PUBLIC_URL to its https \
                     address, or listen on 127.0.0.1"
                )
            ),
        }
    }
}

const TLS: &str = "[server]\ntls_cert = '/c.pem'\ntls_key = '/k.pem'\n";

#[test]
fn a_certificate_and_what_goes_with_it() {
    // Environment, file, and the end of the sentence.
    let table = [
        ("TLS_CERT_FILE=/c.pem", "", "found only `tls_cert`"),
        ("TLS_KEY_FILE=/k.pem", "", "found only `tls_key`"),
        ("TLS_KEY_FILE=/k.pem", "[server]\ntls_cert = 5", "expected the name of a file, found the number 5"),
        ("PUBLIC_URL=http://x.example", TLS, "found an http one; write https:// or take out `tls_cert` and `tls_key`"),
        ("REDIRECT_LISTEN_ADDR=0.0.0.0:80", "", "with a proxy that ends TLS, let the proxy do it"),
        ("TRUSTED_PROXIES=127.0.0.1 10.0.0.0/8", "", "found the text \"127.0.0.1 10.0.0.0/8\""),
        ("", "[server]\nproxy_header = 'x-real-ip'", "expected \"x-forwarded-for\" or \"forwarded\", found the text \"x-real-ip\""),
    ];
    for (env, file, end) in table {
        let found = load(env, file).unwrap_err();
        assert!(found.problems().iter().any(|problem| problem.ends_with(end)), "{env} {file}: {found}");
    }

    let own = load("LISTEN_ADDR=0.0.0.0:443", TLS).unwrap();
    assert_eq!(own.server.tls, Some(TlsFiles { cert: "/c.pem".into(), key: "/k.pem".into() }));
    assert!(own.refuse_insecure().is_ok() && own.server.is_https());
    assert_eq!(own.server.origin(), "https://0.0.0.0:443");
    assert!(own.warnings.iter().any(|warning| warning.contains("PUBLIC_URL is not set")), "{:?}", own.warnings);

    let named = load("PUBLIC_URL=https://pay.example\nTLS_KEY_FILE=/other.pem\nREDIRECT_LISTEN_ADDR=0.0.0.0:80", TLS).unwrap();
    assert_eq!(
        named.server.tls,
        Some(TlsFiles { cert: "/c.pem".into(), key: "/other.pem".into() }),
        "the environment goes before the file"
    );
    assert_eq!((named.server.origin().as_str(), named.warnings.len()), ("https://pay.example", 0));
    assert_eq!(load("", "").unwrap().server.origin(), "http://127.0.0.1:8001");

    let proxies = load("TRUSTED_PROXIES=127.0.0.1, fd00::/8", "[server]\ntrusted_proxies = ['10.0.0.0/8']").unwrap().server.trusted_proxies;
    assert_eq!(proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1/32", "fd00::/8"]);
}

const SECRET_ENV: &str = "
    DATABASE_URL=postgres://tidegate:hunter2@db.example/shop?password=hunter2
    REDIS_URL=redis://:hunter2@cache
    WALLET_MASTER_KEY=hunter2
    ENCRYPTION_SALT=hunter2
    TRONGRID_API_KEY=hunter2
    ETHEREUM_RPC_URL=https://user:hunter2@eth.example/v3/hunter2?key=hunter2
    INFURA_PROJECT_ID=hunter2";

#[test]
fn no_secret_is_ever_printed() {
    let config = load(SECRET_ENV, "").unwrap();
    let shown = format!("{config:?} {config:#?} {}", config.database.url);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("https://eth.example") && shown.contains("postgres://db.example"), "what is not secret is shown");
    assert_eq!(config.master_key.unwrap().text.expose(), "hunter2");
    assert_eq!(config.salt.unwrap().expose(), "hunter2");

    // Every place that may hold a secret, spoiled.
    let env = SECRET_ENV.replace("://", ":/ /").replace("KEY=hunter2", "KEY=hunter2\u{7f}").replace("ID=hunter2", "ID=hunter2?");
    let file = "
        hunter2_is_not_a_value = 'hunter2'
        [server]
        public_url = 'https://user:hunter2@x.example'
        [database]
        url = ['hunter2']
        [networks.ethereum]
        rpc = 'hunter2'
        webhook_secret = 'hunter2'
        [networks.tron]
        rpc = ['hunter2', ['hunter2'], { url = 'hunter2', headers = { X = 'hunter2\\u007f' } }]
        webhook_secret = 'whsec_hunter2!'
        [networks.anvil]
        rpc = ['hunter2://hunter2:hunter2@hunter2']
        [payment_webhooks.p]
        form = 'stripe'
        secret = 'hunter2'
        [payment_webhooks.q]
        form = 'standard'
        secret = 'hunter2hunter2'
        [payment_webhooks.r]
        form = 'standard'
        secret = 'whsec_hunter2'
        [payment_webhooks.s]
        secret = ['hunter2']";
    for env in [env.as_str(), ""] {
        let error = load(env, file).unwrap_err();
        assert!(error.problems().len() > 8, "{error}");
        let shown = format!("{error} {error:?}").replace("hunter2_is_not_a_value", "");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn payment_providers_have_doors() {
    let file = "
        [payment_webhooks.stripe]
        form = 'stripe'
        secret = 'whsec_hunter2'
        [payment_webhooks.now-1]
        form = 'nowpayments'
        secret = 'hunter2hunter2'
        order_pointer = '/order_id'
        [payment_webhooks.std]
        form = 'standard'
        secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
        [payment_webhooks.other]
        form = 'hmac'
        secret = 'hunter2hunter2'
        header = 'X-Sig'
        timestamp_header = 'X-At'
        id_pointer = '/id'
        tx_hash_pointer = '/tx/hash'
        network = 'anvil'";
    let config = load("", &format!("{}{file}", anvil(""))).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let names: Vec<&str> = config.payment_webhooks.keys().map(String::as_str).collect();
    assert_eq!(names, ["now-1", "other", "std", "stripe"]);
    assert_eq!(config.payment_webhooks["stripe"].scheme, Scheme::Stripe);
    assert_eq!(config.payment_webhooks["now-1"].order, Pointer::parse("/order_id"));
    let other = &config.payment_webhooks["other"];
    assert_eq!(other.transaction, Some((Network::new("anvil"), Pointer::parse("/tx/hash").unwrap())));
    let Scheme::Hmac(hmac) = &other.scheme else { panic!("{other:?}") };
    assert_eq!((hmac.header.as_str(), hmac.timestamp_header.as_deref(), hmac.prefix.as_str()), ("x-sig", Some("x-at"), ""));
    assert!(hmac.signed.has_timestamp() && !hmac.signed.has_id(), "the time is signed by default");

    // The keys of a table; the end of the sentence.
    let usual = "secret = 'hunter2hunter2'";
    let hmac = "form = 'hmac'\nsecret = 'hunter2hunter2'\nheader = 'x'\nid_pointer = '/id'";
    for (table, end) in [
        ("form = 'hmac'".to_owned(), "missing `secret`; missing `header`"),
        (usual.to_owned(), "missing `form`"),
        (format!("{usual}\nform = 'paypal'"), "expected \"hmac\", \"standard\", \"stripe\" or \"nowpayments\", found the text \"paypal\""),
        ("form = 'stripe'\nsecret = 'short'".to_owned(), "at least 8 visible ASCII characters, found another text (not shown)"),
        (
            "form = 'standard'\nsecret = 'hunter2hunter2'".to_owned(),
            "whsec_ and then base64 of at least 16 bytes, found another text (not shown)",
        ),
        ("form = 'standard'\nsecret = 'whsec_dGVzdA=='".to_owned(), "base64 of at least 16 bytes, found another text (not shown)"),
        (format!("{usual}\nform = 'stripe'\nheader = 'x'"), "so take it out"),
        (
            format!("{usual}\nform = 'hmac'\nheader = 'x'"),
            "expected one of `id_pointer` and `id_header`: by its id a message is handled once",
        ),
        (format!("{hmac}\nid_header = 'y'"), "expected one of `id_pointer` and `id_header`: by its id a message is handled once"),
        (format!("{hmac}\nsigned = '{{id}}.{{body}}'"), "expected `id_header` for the {id} in `signed`, found none"),
        (format!("{hmac}\nsigned = '{{timestamp}}{{body}}'"), "a time that is not signed proves nothing"),
        (format!("{hmac}\ntimestamp_header = 'y'\nsigned = '{{body}}'"), "a time that is not signed proves nothing"),
        (format!("{hmac}\nsigned = 'body'"), "such as \"{timestamp}.{body}\", found the text \"body\""),
        (format!("{hmac}\nalgorithm = 'md5'"), "expected \"sha256\" or \"sha512\", found the text \"md5\""),
        (format!("{hmac}\nencoding = 'raw'"), "expected \"hex\" or \"base64\", found the text \"raw\""),
        (
            format!("{hmac}\norder_pointer = 'order'"),
            "expected a JSON pointer into the body such as \"/data/id\", found the text \"order\"",
        ),
        (format!("{hmac}\nnetwork = 'anvil'"), "expected `tx_hash_pointer` and `network` together, found one of them"),
        (format!("{hmac}\nnetwork = 'x'\ntx_hash_pointer = '/a'"), "expected `network` to be an active network (anvil), found \"x\""),
    ] {
        let found = problems("", &format!("{}[payment_webhooks.p]\n{table}", anvil("")));
        assert!(found.iter().all(|problem| problem.contains("payment_webhooks.p")), "{found:?}");
        let ends: Vec<&str> = end.split("; missing").collect();
        for end in ends {
            assert!(found.iter().any(|problem| problem.contains(end)), "{table}: {end}: {found:?}");
        }
        assert!(!format!("{found:?}").contains("hunter2"));
    }
    assert!(problem("", "[payment_webhooks.'a b']\nform = 'stripe'\nsecret = 'hunter2hunter2'").contains("rename the table"));
}

#[test]
fn the_example_is_valid_as_it_is_and_without_its_comments() {
    let as_it_is = load("", EXAMPLE).unwrap();
    let settings = uncommented();
    let config = load("SMTP_PASSWORD=p\nTELEGRAM_BOT_TOKEN=1:t\nSMS_SECRET=s", &settings).unwrap_or_else(|error| panic!("{error}"));

    // What it shows is the default, but for what has none.
    let defaults = load("", "").unwrap();
    let show = |config: &Config| {
        let Config { database, log, orders, pool, webhooks, balances, notifications, .. } = config;
        let Notifications { language, events, alerts, digest, customer_events, .. } = notifications;
        format!("{language:?} {events:?} {alerts:?} {digest:?} {customer_events:?}")
            + &format!("{} {database:?} {log:?} {orders:?} {pool:?} {webhooks:?} {balances:?}", config.server.listen)
    };
    assert_eq!(show(&as_it_is), show(&defaults));
    assert_eq!(show(&config), show(&defaults));

    assert_eq!(names(&config), ["ethereum", "tron", "anvil"]);
    let preset = load("ETHEREUM_RPC_URL=http://x", "").unwrap();
    let show = |network: &NetworkConfig| {
        let mut network = network.clone();
        (network.rpc, network.tiers, network.webhook_secret, network.alchemy_signing_key) = (vec![], vec![], None, None);
        (network.agree_above, network.min_amount, network.max_amount) = (None, None, None);
        (network.requests_per_second, network.requests_per_day, network.symbol) = (None, None, None);
        format!("{network:?}")
    };
    assert_eq!(show(&config.networks[0]), show(&preset.networks[0]));
    // All at once, the replica stands beside the SQLite file.
    assert_eq!(config.warnings, ["database.replica_url has no effect: a SQLite file has no replicas"]);
    assert!(config.refuse_insecure().is_ok());
}

/// A line for each thing that a test of `[notifications]` varies, and the sentence it ends with.
#[test]
fn channels_of_notifications_are_complete_or_refused() {
    let smtp = "[notifications.smtp]\nhost = 'mail.example'\nfrom = 'a@example.com'\n";
    let telegram = "[notifications.telegram]\nchat_id = '-100'\n";
    let sms = "[notifications.sms]\nurl = 'https://sms.example/{to}?t={text}'\nmethod = 'GET'\n";
    // Environment; which table; what is added to it; the end of the sentence.
    let table = [
        ("", "[notifications]\nevents = ['order.pad']", "", "found the text \"order.pad\""),
        ("", "[notifications]\nevents = ['wallet.alert']", "", "found the text \"wallet.alert\""),
        ("", "[notifications]\nalerts = 'loud'", "", "expected \"info\", \"warning\", \"critical\" or \"off\", found the text \"loud\""),
        ("", "[notifications]\ndigest = 'weekly'", "", "expected \"off\", \"hourly\" or \"daily\", found the text \"weekly\""),
        ("", "[notifications]\ndigest_at = '24:00'", "", "found the text \"24:00\""),
        ("", "[notifications]\nlanguage = 'de'", "", "expected \"en\" or \"zh\", found the text \"de\""),
        ("", "[notifications]\ncustomers = true", "", "customers are told by mail or SMS alone"),
        ("", "[notifications]\ncustomer_events = ['order.payment_reverted']", "", "found the text \"order.payment_reverted\""),
        ("", "[notifications.smtp]\nfrom = 'a@example.com'", "", "missing `host`"),
        ("", "[notifications.smtp]\nhost = 'mail.example'", "", "missing `from`"),
        ("", "[notifications.smtp]\nfrom = 'a@example.com'", "host = 'x y'", "found the text \"x y\""),
        ("", smtp, "to = ['nobody']", "found the text \"nobody\""),
        ("", smtp, "security = 'ssl'", "expected \"tls\", \"starttls\" or \"none\", found the text \"ssl\""),
        ("", smtp, "port = 65536", "expected a whole number from 1 to 65535, found the number 65536"),
        ("", smtp, "username = 'u'", "found `username` without SMTP_PASSWORD"),
        ("SMTP_PASSWORD=p", smtp, "", "found SMTP_PASSWORD without `username`"),
        ("SMTP_PASSWORD=p", smtp, "username = 'u'\nsecurity = 'none'", "where a password is sent to another machine, found \"none\""),
        ("", smtp, "password = 'hunter2'", "set the environment variable SMTP_PASSWORD, or SMTP_PASSWORD_FILE to the name of a file"),
        ("", smtp, "per_minute = 0", "expected a whole number from 1 to 6000, found the number 0"),
        ("", telegram, "", "expected the bot's token in TELEGRAM_BOT_TOKEN or TELEGRAM_BOT_TOKEN_FILE, found neither"),
        ("TELEGRAM_BOT_TOKEN=hunter2", telegram, "", "found another text (not shown)"),
        ("TELEGRAM_BOT_TOKEN=1:t", "[notifications.telegram]\nchat_id = 'me'", "", "found the text \"me\""),
        ("TELEGRAM_BOT_TOKEN=1:t", telegram, "api_url = 'http://tg.example'", "is sent to another machine, found http"),
        ("", "[notifications.sms]\nmethod = 'GET'", "", "missing `url`"),
        (
            "",
            "[notifications.sms]\nurl = 'https://sms.example/{to}'\nmethod = 'GET'",
            "",
            "expected {text} in `url` or `body`, found it in neither",
        ),
        ("", sms, "body = 'x'", "expected no `body` with `method = \"GET\"`, found one; put {to} and {text} into `url`"),
        ("", sms, "headers = { X-Key = '{secret}' }", "expected what stands for {secret} in SMS_SECRET or SMS_SECRET_FILE, found neither"),
        ("SMS_SECRET=s", sms, "", "expected {secret} in `url`, `headers` or `body`, where SMS_SECRET is set, found it in none"),
        ("", sms, "to = ['me']", "found the text \"me\""),
        ("", sms, "token = 'x'", "`, `accepted`, `per_minute`"),
    ];
    for (env, section, added, expected) in table {
        let found = problem(env, &format!("{section}\n{added}"));
        assert!(found.contains(expected) && !found.contains("hunter2"), "{section} {added}: {found}");
    }
    let open = "[notifications.sms]\nurl = 'http://sms.example/{to}?t={text}&k={secret}'\nmethod = 'GET'";
    assert!(problem("SMS_SECRET=s", open).contains("is sent to another machine, found http"));
}

#[test]
fn channels_of_notifications_have_their_usual_settings() {
    let file = "
        [notifications]
        digest = 'daily'
        digest_at = '23:59'
        customers = true
        customer_events = ['order.paid', 'order.paid']
        [notifications.smtp]
        host = '127.0.0.1'
        from = 'Shop <a@example.com>'
        to = ['ops@example.com', 'Ops <ops@example.com>']
        security = 'starttls'
        [notifications.telegram]
        chat_id = '-100'
        [notifications.sms]
        url = 'https://sms.example/?key={secret}'
        to = ['+49 151 1234-5678']";
    let config = load("TELEGRAM_BOT_TOKEN=1:t\nSMS_SECRET=hunter2", file).unwrap();
    let Notifications { digest, customer_events, smtp, telegram, sms, .. } = config.notifications.clone();
    assert_eq!(digest, tidegate_rules::notification::Digest::Daily(Span::from_secs(86_340)));
    assert_eq!(customer_events, [tidegate_rules::notification::Topic::CustomerPaid]);
    let (smtp, telegram, sms) = (smtp.unwrap(), telegram.unwrap(), sms.unwrap());
    assert_eq!((smtp.port, smtp.to.len(), smtp.per_minute.get()), (587, 1, 30));
    assert_eq!((telegram.api_url.as_str(), telegram.per_minute.get()), ("https://api.telegram.org/", 20));
    assert_eq!((sms.to.as_slice(), sms.body.expose()), (&["+4915112345678".to_owned()][..], r#"{"to":"{to}","text":"{text}"}"#));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(!format!("{config:?}").contains("hunter2"));

    let config = load("SMTP_PASSWORD=p\nSMS_SECRET=s", "[notifications]\nlanguage = 'zh'").unwrap();
    let start = ["SMTP_PASSWORD is set, but there is no [notifications.smtp]", "SMS_SECRET is set", "[notifications] names no channel"];
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    assert!(config.warnings.iter().zip(start).all(|(warning, start)| warning.starts_with(start)), "{:?}", config.warnings);
    assert!(config.notifications.channels().is_empty());
}

#[test]
fn secrets_of_notifications_may_be_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, secret) = (dir.path().join("own.toml"), dir.path().join("token"));
    std::fs::write(&settings, "[notifications.telegram]\nchat_id = '-100'").unwrap();
    std::fs::write(&secret, "1:token\n").unwrap();
    let env = format!("TELEGRAM_BOT_TOKEN_FILE={}", secret.display());
    assert_eq!(read(&env, Some(&settings)).unwrap().notifications.telegram.unwrap().token.expose(), "1:token");
    std::fs::write(&secret, " \n").unwrap();
    let error = read(&env, Some(&settings)).unwrap_err().to_string();
    assert_eq!(error, "TELEGRAM_BOT_TOKEN_FILE: expected a file with a secret in it, found an empty one");
    let error = read("SMTP_PASSWORD_FILE=/nowhere/at/all", Some(&settings)).unwrap_err().to_string();
    assert!(error.starts_with("SMTP_PASSWORD_FILE: expected a readable file at /nowhere/at/all, found none"), "{error}");
}

#[test]
fn whatever_may_hold_a_secret_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, secret) = (dir.path().join("own.toml"), dir.path().join("url"));
    std::fs::write(&settings, "").unwrap();
    std::fs::write(&secret, "postgres://tidegate:hunter2@db.example/books\n").unwrap();
    let config = read(&format!("DATABASE_URL_FILE={}", secret.display()), Some(&settings)).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://tidegate:hunter2@db.example/books");
    std::fs::write(&secret, "redis://:hunter2@cache/").unwrap();
    assert!(read(&format!("REDIS_URL_FILE={}", secret.display()), Some(&settings)).unwrap().redis_url.is_some());
    std::fs::write(&secret, "http://node.example/hunter2").unwrap();
    assert_eq!(urls(&read(&format!("TRON_RPC_URL_FILE={}", secret.display()), Some(&settings)).unwrap().networks[0]).len(), 1);

    let both = |name: &str| name.starts_with("REDIS_URL").then(|| "redis://:hunter2@x".to_owned());
    let error = Config::from_files(Overrides::default(), Some(&settings), &both).unwrap_err().to_string();
    assert_eq!(error, "REDIS_URL: expected this variable or REDIS_URL_FILE, found both; unset one of them");
}

#[test]
fn how_far_a_network_is_trusted_is_configured() {
    let network = |more: &str| load("", &anvil(more)).unwrap().networks.remove(0);
    let plain = network("");
    assert_eq!((plain.reconcile, plain.agree_above, plain.final_lag_max), (Reconcile::Settled, None, Span::from_secs(7_200)));
    let two = "rpc = ['https://a.example/KEY', { url = 'https://b.example', requests_per_second = 7, requests_per_day = 900 }]";
    let text = anvil("reconcile = 'off'\nfinal_lag_max = '90s'\nagree_above = '5000'\nrequests_per_day = 10");
    let one_rpc = text.lines().find(|line| line.starts_with("rpc")).unwrap().to_owned();
    let careful = load("", &text.replace(&one_rpc, two)).unwrap().networks.remove(0);
    assert_eq!((careful.reconcile, careful.agree_above), (Reconcile::Off, Some(amount("5000"))));
    assert_eq!((careful.final_lag_max, careful.requests_per_day), (Span::from_secs(90), Some(10)));
    let budgets: Vec<_> =
        careful.rpc.iter().map(|rpc| (rpc.requests_per_second.map(std::num::NonZeroU32::get), rpc.requests_per_day)).collect();
    assert_eq!(budgets, [(None, None), (Some(7), Some(900))]);

    for (more, expected) in [
        ("agree_above = '5000'", "expected endpoints of at least two hosts"),
        ("reconcile = 'sometimes'", "expected \"settled\" or \"off\""),
        ("final_lag_max = '0s'", "expected from \"1s\""),
        ("min_amount = '5'\nmax_amount = '4'", "expected `max_amount` to be at least `min_amount`, 5.000000"),
        ("symbol = ''", "expected what the token contract answers to symbol()"),
    ] {
        let found = problem("", &anvil(more));
        assert!(found.contains(expected), "{more}: {found}");
    }
    let lags = |rpc: &str| load(rpc, "").unwrap().networks.remove(0).final_lag_max;
    assert_eq!((lags("TRON_RPC_URL=http://x"), lags("ETHEREUM_RPC_URL=http://x")), (Span::from_secs(300), Span::from_secs(2_700)));
}

#[test]
fn the_example_has_every_key_and_every_variable() {
    let settings = uncommented();
    let mut problems = Problems::default();
    let file = Some((Path::new(DEFAULT_FILE), settings.as_str()));
    Config::read(Sources { flags: Overrides::default(), env: &|_| None, file }, &mut problems).unwrap();
    for (section, key) in problems.known() {
        let is_there = settings.lines().any(|line| {
            line.starts_with(&format!("{key} = "))
                || line.starts_with(&format!("[{key}"))
                || line.contains(&format!(".{key}]"))
                || line.contains(&format!(" {key} = "))
        });
        assert!(is_there, "[{section}] {key} is not in config.example.toml");
    }
    assert!(problems.known().len() > 40, "{:?}", problems.known());
    for name in VARIABLES {
        assert!(EXAMPLE.contains(name), "{name} is not in config.example.toml");
    }
}

/// The example with its settings switched on: a comment has a space behind the `#`, a setting none.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn files_that_are_not_there_or_not_readable() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    let error = read("", Some(&missing)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("--config: expected a readable file at {}, found none: ", missing.display())), "{error}");
    assert!(read("", None).is_ok(), "the usual file need not be there");

    let file = dir.path().join("own.toml");
    std::fs::write(&file, "[orders]\nmin_amount = '3'\n").unwrap();
    assert_eq!(read("", Some(&file)).unwrap().orders.min_amount, amount("3"));
    std::fs::write(&file, "[orders]\nmin_amounts = '3'\n").unwrap();
    let error = read("", Some(&file)).unwrap_err().to_string();
    let place = format!("`orders.min_amounts` in {}, line 2", file.display());
    assert_eq!(error, format!("unknown key {place}: did you mean `min_amount`?"));
    std::fs::write(&file, vec![b'#'; 1024 * 1024]).unwrap();
    let error = read("", Some(&file)).unwrap_err().to_string();
    assert!(error.contains("it is larger than 1 MiB"), "{error}");
}

#[test]
fn the_master_key_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let env = format!("{MASTER_KEY_FILE}={}", file.display());
    let error = read(&env, None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{MASTER_KEY_FILE}: expected a readable file at {}, found none: ", file.display())), "{error}");
    std::fs::write(&file, "hunter2\n").unwrap();
    assert_eq!(read(&env, None).unwrap().master_key.unwrap().text.expose(), "hunter2");
    std::fs::write(&file, "\n").unwrap();
    let error = read(&env, None).unwrap_err().to_string();
    assert!(error.contains("found an empty one"), "{error}");
    std::fs::write(&file, b"\xff\xfe").unwrap();
    assert!(read(&env, None).is_err());
    let both = problem("WALLET_MASTER_KEY=a\nWALLET_MASTER_KEY_FILE=b", "");
    assert_eq!(both, "WALLET_MASTER_KEY: expected this variable or WALLET_MASTER_KEY_FILE, found both; unset one of them");
}

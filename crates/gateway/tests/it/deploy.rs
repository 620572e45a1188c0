//! What is in `deploy/`, as far as it can be tried without a container engine and without systemd as
//! the first process: the unit is judged by systemd-analyze, the compose file and the Dockerfile are
//! read and held to what they promise, and the secrets that are made open what they are for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::gateway::{BINARY, Done, Home, Settings};
use crate::redis::Redis;
use crate::tools::repo;

/// Of 10, by systemd's own measure: "OK" ends at 5.
const EXPOSURE_MAX: &str = "1.5";

fn text(path: &str) -> String {
    std::fs::read_to_string(repo().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The unit with the program of this test in the place of the installed one.
fn unit(dir: &Path) -> String {
    let unit = dir.join("tidegate.service");
    let text = text("deploy/systemd/tidegate.service");
    assert_eq!(text.matches("/usr/local/bin/tidegate").count(), 1);
    std::fs::write(&unit, text.replace("/usr/local/bin/tidegate", BINARY)).unwrap();
    unit.to_str().unwrap().to_owned()
}

#[test]
fn systemd_understands_the_unit_and_finds_it_closed() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    let verified = Done::of(Command::new("systemd-analyze").args(["verify", &unit])).succeeded();
    assert_eq!(verified.output().trim(), "", "a warning is a mistake");
    let threshold = format!("--threshold={}", EXPOSURE_MAX.replace('.', ""));
    let judged = Done::of(Command::new("systemd-analyze").args(["security", "--offline=yes", &threshold, &unit])).succeeded();
    assert!(judged.stdout.contains("Overall exposure level"), "{judged:?}");

    // The measure measures: the same unit with its walls down does not pass.
    let open = std::fs::read_to_string(&unit).unwrap().replace("SystemCallFilter=", "#").replace("CapabilityBoundingSet=", "#");
    std::fs::write(&unit, open).unwrap();
    let judged = Done::of(Command::new("systemd-analyze").args(["security", "--offline=yes", &threshold, &unit]));
    assert_ne!(judged.code, Some(0), "{judged:?}");
}

/// A YAML file as JSON.
fn yaml(path: &str) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let file = std::fs::File::open(repo().join(path)).unwrap();
    let done = Command::new("python3").args(["-c", program]).stdin(file).output().unwrap();
    assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_service_of_the_compose_file_has_no_more_rights_than_it_needs() {
    let compose = yaml("deploy/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["postgres", "redis", "tidegate"]);
    for (name, service) in services {
        for forbidden in ["privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "env_file"] {
            assert!(service[forbidden].is_null(), "{name} has {forbidden}");
        }
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(list(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(list(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        let user = service["user"].as_str().unwrap_or_else(|| panic!("{name} has no user"));
        assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{name} is {user}");
        for limit in ["mem_limit", "pids_limit"] {
            assert!(!service[limit].is_null(), "{name} has no {limit}");
        }
        assert!(!list(&service["healthcheck"]["test"]).is_empty(), "{name} is not watched");
        let image = service["image"].as_str().unwrap();
        assert!(image.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest"), "{name}: {image}");
        // What is written goes to memory or to a named volume, never to a folder of the host.
        for volume in list(&service["volumes"]) {
            let (source, _) = volume.split_once(':').unwrap();
            assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{name}: {volume}");
        }
        // A secret is a file, in no variable.
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {variable}"));
            let hides = ["PASSWORD", "MASTER_KEY", "DATABASE_URL", "REDIS_URL"].iter().any(|part| variable.contains(part));
            assert!(!hides || variable.ends_with("_FILE") || value.is_empty(), "{name}: {variable}={value}");
            if let Some(secret) = value.strip_prefix("/run/secrets/") {
                assert!(list(&service["secrets"]).contains(&secret), "{name} does not get {secret}");
            }
        }
        for port in list(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
    assert_eq!(compose["networks"]["inside"]["internal"], true);
    for name in ["postgres", "redis"] {
        assert_eq!(list(&services[name]["networks"]), ["inside"], "{name}");
        assert!(services[name]["ports"].is_null(), "{name}");
        assert_eq!(services["tidegate"]["depends_on"][name]["condition"], "service_healthy");
    }
    let environment = &services["tidegate"]["environment"];
    assert_eq!(environment["TRUSTED_PROXIES"], compose["networks"]["outside"]["ipam"]["config"][0]["gateway"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_that_are_made_are_those_that_the_compose_file_names() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    let make = || Done::of(Command::new(repo().join("deploy/make-secrets")).arg(&secrets));
    make().succeeded();
    let read = |name: &str| std::fs::read_to_string(secrets.join(name)).unwrap();
    assert_eq!(std::fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o700);
    for (name, secret) in yaml("deploy/compose.yaml")["secrets"].as_object().unwrap() {
        let file = secret["file"].as_str().unwrap().strip_prefix("./secrets/").unwrap();
        assert!(!read(file).is_empty(), "{name}");
    }
    assert_eq!(read("database.url"), format!("postgres://tidegate:{}@postgres/tidegate", read("postgres.password")));
    // Never a second time: the key opens what is sealed already.
    let key = read("master.key");
    assert_eq!(make().code, Some(1));
    assert_eq!(read("master.key"), key);

    // Redis lets Tidegate in by them, to all that it does there, and nobody else; and the key is one.
    let redis = Redis::configured_by(&secrets.join("redis.conf")).await;
    assert!(redis.command(&["PING"]).contains("NOAUTH"));
    let rights = |text: &str| text.lines().find_map(|line| Some(line.split_once(" ~tidegate:* ")?.1.to_owned()));
    let documented = text("docs/operating.md");
    assert_eq!(rights(&read("redis.conf")).unwrap(), rights(&documented).unwrap(), "as in docs/operating.md, under Redis");
    let url = dir.path().join("redis.url");
    std::fs::write(&url, read("redis.url").replace("@redis/", &format!("@127.0.0.1:{}/", redis.port))).unwrap();
    let home = Home::new(&Settings::new("http://127.0.0.1:9", [1; 20]));
    let config = home.config_file();
    let mut check = home.command(&["check", "--json", "--config", config.to_str().unwrap()]);
    check.env_remove("WALLET_MASTER_KEY").env("WALLET_MASTER_KEY_FILE", secrets.join("master.key")).env("REDIS_URL_FILE", &url);
    let found: Value = serde_json::from_slice(&check.output().unwrap().stdout).unwrap();
    for name in ["redis", "master key"] {
        let row = found["data"].as_array().unwrap().iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("{found}"));
        assert_eq!(row["ok"], true, "{found}");
    }
}

/// Every source file of the program, tests apart.
fn sources_of_crates() -> Vec<PathBuf> {
    let crates = std::fs::read_dir(repo().join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut folders: Vec<PathBuf> = crates.collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                _ if entry.is_dir() => folders.push(entry),
                Some(extension) if extension == "rs" => files.push(entry),
                _ => {}
            }
        }
    }
    files
}

#[test]
fn the_image_is_built_from_what_is_there_and_runs_as_nobody_in_particular() {
    let (file, ignored) = (text("deploy/docker/Dockerfile"), text(".dockerignore"));
    let steps: Vec<(&str, &str)> =
        file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.trim().split_once(' ')).collect();
    let of = |step: &str| steps.iter().filter(|(name, _)| *name == step).map(|(_, rest)| *rest).collect::<Vec<_>>();
    assert!(of("ADD").is_empty());
    for image in of("FROM") {
        assert!(image.split(' ').next().unwrap().split_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
    }
    let copied: Vec<&str> = of("COPY").into_iter().filter(|rest| !rest.starts_with("--")).collect();
    assert!(copied.len() > 3, "{copied:?}");
    let sources = copied.iter().flat_map(|rest| rest.split(' ').collect::<Vec<_>>().split_last().unwrap().1.to_vec());
    for source in sources {
        assert!(repo().join(source).exists(), "{source} is not there");
        assert!(ignored.lines().any(|line| line.strip_prefix('!') == Some(source)), ".dockerignore leaves out {source}");
    }
    // By number, which Kubernetes and others ask for.
    assert_eq!(of("USER"), ["65532:65532"]);
    assert_eq!(of("ENTRYPOINT"), ["[\"/usr/local/bin/tidegate\"]"]);
    assert_eq!(of("HEALTHCHECK").len(), 1);
    // Every member of the workspace is copied, or cargo would not begin.
    let manifest = text("Cargo.toml");
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in members.split(',').map(|member| member.trim().trim_matches('"')) {
        assert!(copied.iter().any(|rest| member.starts_with(rest.split(' ').next().unwrap())), "{member} is not copied");
    }
    // And every file that is compiled in from outside its crate.
    let mut from_outside = 0;
    for file in sources_of_crates() {
        let code = std::fs::read_to_string(&file).unwrap();
        for path in code.split("include_str!(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let included = file.parent().unwrap().join(path).canonicalize().unwrap_or_else(|error| panic!("{path}: {error}"));
            let included = included.strip_prefix(repo().canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
            from_outside += usize::from(!included.starts_with("crates/"));
            assert!(copied.iter().any(|rest| included.starts_with(rest.split(' ').next().unwrap())), "{included} is not copied");
        }
    }
    assert!(from_outside > 0, "nothing was looked at");
}

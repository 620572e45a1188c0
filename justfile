# Short names for what CONTRIBUTING.md says in full.

# List the recipes
default:
    @just --list

# The whole product in a sandbox
dev *args:
    cargo run -- dev {{args}}

# Five orders, ten seconds
demo:
    cargo run -- demo

# What CI runs; arguments go to cargo test
test *args:
    scripts/test {{args}}

# Decisions only: seconds
rules:
    cargo test --locked -p tidegate-rules

# Style as a test
tidy:
    cargo test --locked -p tidegate --test tidy

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Benchmarks
bench:
    cargo bench --locked --workspace --benches

# Licences and bans of dependencies (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

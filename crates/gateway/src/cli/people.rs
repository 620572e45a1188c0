//! `tidegate user …`: who may log in. A password is read from stdin or a file, never from an
//! argument, and one that is made here is shown once.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tidegate_rules::people::Role;

use super::args::{ConfigArgs, UserCommand};
use super::read_config;
use super::terminal::{read_secret, say};
use crate::config::{Overrides, SecretText};
use crate::http::UserView;
use crate::people::login::account_name;
use crate::people::users::{self, Factor, Put, Wish};
use crate::people::{Doer, password};
use crate::start::{self, Sorry};
use crate::store::{Migrate, Store};

/// `tidegate user …`
pub(super) async fn user(command: UserCommand) -> Result<ExitCode, Sorry> {
    match command {
        UserCommand::Add { config, email, role, password_stdin, password_file, json } => {
            let given = match (password_stdin, password_file) {
                (_, Some(file)) => Some(typed(Some(&file))?),
                (true, None) => Some(typed(None)?),
                (false, None) => None,
            };
            add(&config, (&email, &role), given, json).await?;
        }
        UserCommand::List { config, limit, json } => list(&config, limit, json).await?,
        UserCommand::Reset { config, email, json } => reset(&config, &email, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A password as it was typed or written, without the end of its line.
fn typed(file: Option<&Path>) -> Result<SecretText, Sorry> {
    let text = zeroize::Zeroizing::new(read_secret(file)?);
    Ok(SecretText::new(text.trim_end_matches(['\r', '\n'])))
}

async fn open(config: &ConfigArgs) -> Result<Store, Sorry> {
    start::open_store(&read_config(config, Overrides::default())?, Migrate::Yes).await
}

/// Prints a user, and the password where it was made here.
fn print(view: &UserView, made: Option<&SecretText>, json: bool) {
    let mut document = json!(view);
    match (made, json) {
        (Some(made), true) => {
            if let Some(document) = document.as_object_mut() {
                document.insert("password".to_owned(), json!(made.expose()));
            }
            say(&document.to_string());
        }
        (None, true) => say(&document.to_string()),
        (Some(made), false) => say(&format!("{}\npassword  {}\n\nThe password is shown this once.", view.line(), made.expose())),
        (None, false) => say(&view.line()),
    }
}

async fn add(config: &ConfigArgs, (email, role): (&str, &str), given: Option<SecretText>, json: bool) -> Result<(), Sorry> {
    let role = Role::from_name(role).ok_or_else(|| Sorry::new("--role: expected owner, operator, support or viewer"))?;
    let store = open(config).await?;
    let made = if given.is_none() { Some(password::generate()) } else { None };
    let password = given.or_else(|| made.clone()).unwrap_or_else(password::generate);
    let row = users::add(&store, Wish { email: email.to_owned(), role, password }, &Doer::on_command_line(), |_| None).await?;
    print(&UserView::from(&row), made.as_ref(), json);
    store.close().await;
    Ok(())
}

async fn list(config: &ConfigArgs, limit: u32, json: bool) -> Result<(), Sorry> {
    let store = open(config).await?;
    let users: Vec<UserView> = store.users(None, i64::from(limit)).await?.iter().map(UserView::from).collect();
    if json {
        say(&json!({ "data": users, "next_cursor": null }).to_string());
    } else {
        users.iter().for_each(|user| say(&user.line()));
    }
    store.close().await;
    Ok(())
}

async fn reset(config: &ConfigArgs, email: &str, json: bool) -> Result<(), Sorry> {
    let store = open(config).await?;
    let row = store.user_by_email(&account_name(email)).await?;
    let row = row.ok_or_else(|| Sorry(format!("--email {email}: expected somebody of `tidegate user list`, found nobody")))?;
    let made = password::generate();
    let put = Put { password: Some(made.clone()), second_factor: Factor::Goes, ..Put::default() };
    let row = users::put(&store, row.id, put, &Doer::on_command_line()).await?;
    print(&UserView::from(&row), Some(&made), json);
    store.close().await;
    Ok(())
}

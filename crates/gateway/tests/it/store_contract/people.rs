//! Users, sessions, merchants, keys, and the log of what they did.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tidegate::clock::id_bytes;
use tidegate::store::{AuditFilter, Commit, Store};
use tidegate_rules::audit;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, NewApiKey, NewAudit, NewMerchant, SealedIn, WalletChange, WalletMove};
use tidegate_rules::id::{KeyId, MerchantId, SessionId, UserId, WalletId};
use tidegate_rules::people::{NewSession, NewUser, PeopleChange, Role, UserMove, UserStatus};
use tidegate_rules::wallet::RiskLevel;

use super::{Ground, at, done, new_merchant, people, refused};

contract!(
    the_audit_log_is_one_chain_however_many_write_it,
    settings_merchants_and_keys_are_kept,
    users_change_from_where_they_were_read,
    an_owner_is_always_left,
    a_code_is_used_once,
    sessions_begin_are_listed_and_end,
);

fn done_by(actor: &str) -> NewAudit {
    NewAudit {
        at: at(1),
        actor: actor.into(),
        action: Action::WalletStatus,
        subject: "wal_1".into(),
        origin: "127.0.0.1".into(),
        reason: "because".into(),
        detail: "{}".into(),
    }
}

async fn the_audit_log_is_one_chain_however_many_write_it(ground: Ground) {
    let store = ground.open().await;
    assert_eq!(store.audit_head().await.unwrap(), None);
    let writers = (0..40).map(|n| {
        let store = store.clone();
        let audit = (0..=n % 3).map(|_| done_by(&format!("key_{n}"))).collect();
        tokio::spawn(async move {
            // On PostgreSQL those that meet at the head of the chain try again.
            while store.commit(Changes { audit: Vec::clone(&audit), ..Changes::default() }).await.unwrap() == Commit::Conflict {}
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let rows = store.audit_after(0, 1_000).await.unwrap();
    let head = audit::verify(rows.iter().map(|row| (&row.entry, row.hash.as_str()))).unwrap();
    assert_eq!((rows.len(), Some((head.seq, head.hash))), (79, store.audit_head().await.unwrap()));

    // Newest first, by who did it.
    let filter = AuditFilter { actor: Some("key_2".into()), before: Some(80), ..AuditFilter::default() };
    let page = store.audit(filter, 2).await.unwrap();
    assert_eq!(page.len(), 2);
    assert!(page.iter().all(|row| row.entry.actor == "key_2") && page[0].entry.seq > page[1].entry.seq);

    // What is not stored leaves no row.
    let stale = WalletChange { id: WalletId::new(at(0), id_bytes()), version: 7, kind: WalletMove::Risk(RiskLevel::High) };
    let both = Changes { wallets: vec![stale], audit: vec![done_by("nobody")], ..Changes::default() };
    assert_eq!(store.commit(both).await.unwrap(), Commit::Conflict);
    assert_eq!(store.audit_head().await.unwrap().unwrap().0, 79);
}

async fn settings_merchants_and_keys_are_kept(ground: Ground) {
    let store = ground.open().await;
    assert_eq!(store.setting("salt").await.unwrap(), None);
    let race = join_all((0..8).map(|n| {
        let store = store.clone();
        async move { store.setting_or("salt", &format!("salt {n}")).await.unwrap() }
    }))
    .await;
    assert!(race.iter().all(|found| *found == race[0]), "two salts: {race:?}");
    assert_eq!(store.setting("salt").await.unwrap().as_ref(), race.first());

    let merchant = |name: &str| new_merchant(name, Some("https://shop.example/hook"));
    let main = merchant("main");
    let add = async |merchant: NewMerchant| store.commit(Changes { new_merchants: vec![merchant], ..Changes::default() }).await.unwrap();
    assert_eq!(add(main.clone()).await, Commit::Done);
    assert_eq!(add(merchant("main")).await, Commit::Conflict, "the name is taken");
    assert_eq!(add(merchant("second")).await, Commit::Done);
    let found = store.merchants().await.unwrap();
    assert_eq!((found.len(), found[0].id, found[0].webhook_url.clone()), (2, main.id, main.webhook_url.clone()));

    let key = NewApiKey {
        id: KeyId::new(at(0), id_bytes()),
        merchant: main.id,
        secret_hash: "hash".into(),
        scopes: "orders:read orders:write".into(),
        livemode: true,
        name: Some("shop backend".into()),
        expires_at: Some(at(900)),
        allowed_ips: "10.0.0.0/8 192.0.2.1/32".into(),
        created_at: at(1),
    };
    let add = async |key: NewApiKey| store.commit(Changes { new_api_keys: vec![key], ..Changes::default() }).await.unwrap();
    assert_eq!(add(key.clone()).await, Commit::Done);
    assert_eq!(add(NewApiKey { id: KeyId::new(at(0), id_bytes()), ..key.clone() }).await, Commit::Conflict);
    let found = store.api_key("hash").await.unwrap().unwrap();
    assert_eq!((found.id, found.merchant, found.scopes), (key.id, main.id, key.scopes.clone()));
    assert_eq!((found.name, found.expires_at, found.allowed_ips), (key.name.clone(), key.expires_at, key.allowed_ips.clone()));
    assert_eq!((found.livemode, found.last_used_at, found.revoked_at), (true, None, None));
    assert!(store.api_key("another hash").await.unwrap().is_none());

    store.key_used(key.id, at(5)).await.unwrap();
    store.key_used(key.id, at(4)).await.unwrap();
    let bare = NewApiKey {
        id: KeyId::new(at(1), id_bytes()),
        merchant: MerchantId::new(at(0), id_bytes()),
        secret_hash: "bare".into(),
        name: None,
        expires_at: None,
        allowed_ips: String::new(),
        ..key.clone()
    };
    assert_eq!(add(bare.clone()).await, Commit::Done);
    let page = store.api_keys(None, None, 10).await.unwrap();
    assert_eq!(page.iter().map(|row| (row.id, row.last_used_at)).collect::<Vec<_>>(), [(bare.id, None), (key.id, Some(at(5)))]);
    let ids = |rows: Vec<tidegate::store::ApiKeyRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.api_keys(Some(main.id), None, 10).await.unwrap()), [key.id]);
    assert_eq!(ids(store.api_keys(None, Some(bare.id.to_string()), 10).await.unwrap()), [key.id]);

    let revoke = Changes { people: vec![PeopleChange::RevokeKey { id: key.id, at: at(9) }], ..Changes::default() };
    done(&store, revoke.clone()).await;
    refused(&store, revoke).await;
    assert!(store.api_key("hash").await.unwrap().is_none(), "a key that was revoked is none");
    assert_eq!(store.api_key_by_id(key.id).await.unwrap().unwrap().revoked_at, Some(at(9)));
    assert!(store.api_key("bare").await.unwrap().is_some());
}

fn new_user(email: &str, role: Role) -> NewUser {
    NewUser { id: UserId::new(at(1), id_bytes()), email: email.into(), role, password_hash: "$argon2id$".into(), created_at: at(1) }
}

async fn add_user(store: &Store, email: &str, role: Role) -> NewUser {
    let user = new_user(email, role);
    done(store, people(vec![PeopleChange::NewUser(user.clone())])).await;
    user
}

fn user_change(id: UserId, version: i64, kind: UserMove) -> Changes {
    people(vec![PeopleChange::User { id, version, kind }])
}

async fn users_change_from_where_they_were_read(ground: Ground) {
    let store = ground.open().await;
    let support = add_user(&store, "support@shop.example", Role::Support).await;
    let owner = add_user(&store, "owner@shop.example", Role::Owner).await;
    refused(&store, people(vec![PeopleChange::NewUser(new_user("owner@shop.example", Role::Viewer))])).await;
    let found = store.user_by_email("owner@shop.example").await.unwrap().unwrap();
    assert_eq!((found.id, found.role, found.status, found.version), (owner.id, Role::Owner, UserStatus::Active, 1));
    assert_eq!((found.totp.is_none(), found.last_login_at, found.password_hash.expose()), (true, None, "$argon2id$"));
    assert!(store.user_by_email("nobody@shop.example").await.unwrap().is_none());
    let ids = |rows: Vec<tidegate::store::UserRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.users(None, 10).await.unwrap()), [owner.id, support.id]);
    assert_eq!(ids(store.users(Some(owner.id.to_string()), 10).await.unwrap()), [support.id]);

    done(&store, user_change(support.id, 1, UserMove::Put { role: Role::Operator, status: UserStatus::Disabled })).await;
    refused(&store, user_change(support.id, 1, UserMove::Password("other".into()))).await;
    done(&store, user_change(support.id, 2, UserMove::Password("other".into()))).await;
    let found = store.user(support.id).await.unwrap().unwrap();
    assert_eq!((found.role, found.status, found.password_hash.expose(), found.version), (Role::Operator, UserStatus::Disabled, "other", 3));
    done(&store, user_change(support.id, 3, UserMove::Remove)).await;
    assert!(store.user(support.id).await.unwrap().is_none());
}

async fn an_owner_is_always_left(ground: Ground) {
    let store = ground.open().await;
    // Nobody was an owner: nothing is lost by a change.
    let viewer = add_user(&store, "viewer@shop.example", Role::Viewer).await;
    done(&store, user_change(viewer.id, 1, UserMove::Put { role: Role::Support, status: UserStatus::Active })).await;
    let one = add_user(&store, "one@shop.example", Role::Owner).await;
    assert_eq!(store.owners_besides(one.id).await.unwrap(), 0);
    refused(&store, user_change(one.id, 1, UserMove::Remove)).await;
    refused(&store, user_change(one.id, 1, UserMove::Put { role: Role::Operator, status: UserStatus::Active })).await;
    refused(&store, user_change(one.id, 1, UserMove::Put { role: Role::Owner, status: UserStatus::Disabled })).await;
    assert!(store.user(one.id).await.unwrap().is_some());

    // Two owners who remove each other at the same moment, again and again: one is left.
    for round in 0..10 {
        let other = add_user(&store, &format!("other{round}@shop.example"), Role::Owner).await;
        let third = add_user(&store, &format!("third{round}@shop.example"), Role::Owner).await;
        let version = store.user(one.id).await.unwrap().unwrap().version;
        done(&store, user_change(one.id, version, UserMove::Put { role: Role::Owner, status: UserStatus::Active })).await;
        let gone = [(one.id, version + 1), (other.id, 1), (third.id, 1)].map(|(id, version)| {
            let store = store.clone();
            let demoted = UserMove::Put { role: Role::Viewer, status: UserStatus::Active };
            tokio::spawn(async move { store.commit(user_change(id, version, demoted)).await.unwrap() })
        });
        let gone = join_all(gone).await.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count();
        let left = store.users(None, 100).await.unwrap().into_iter().filter(|row| row.role == Role::Owner).count();
        assert!(left >= 1 && gone + left == 3, "round {round}: {gone} went, {left} are left");
        let row = store.user(one.id).await.unwrap().unwrap();
        done(&store, user_change(one.id, row.version, UserMove::Put { role: Role::Owner, status: UserStatus::Active })).await;
        for row in store.users(None, 100).await.unwrap().into_iter().filter(|row| row.id != one.id && row.role == Role::Owner) {
            done(&store, user_change(row.id, row.version, UserMove::Remove)).await;
        }
    }
}

async fn a_code_is_used_once(ground: Ground) {
    let store = ground.open().await;
    let user = add_user(&store, "owner@shop.example", Role::Owner).await;
    let used = |step| people(vec![PeopleChange::TotpUsed { user: user.id, step }]);
    refused(&store, used(5)).await;
    done(&store, user_change(user.id, 1, UserMove::OfferTotp("v1.aaaaaaaa.sealed".into()))).await;
    refused(&store, used(5)).await;
    let found = store.user(user.id).await.unwrap().unwrap();
    assert!(found.second_factor().is_none() && found.totp.is_some(), "offered, not in use");
    done(&store, user_change(user.id, 2, UserMove::ConfirmTotp(10))).await;
    let found = store.user(user.id).await.unwrap().unwrap();
    assert_eq!(found.second_factor().map(|totp| (totp.secret.as_str(), totp.step)), Some(("v1.aaaaaaaa.sealed", 10)));
    refused(&store, user_change(user.id, 3, UserMove::OfferTotp("v1.aaaaaaaa.another".into()))).await;
    refused(&store, used(9)).await;
    refused(&store, used(10)).await;
    let race = join_all((0..8).map(|_| store.commit(used(11)))).await;
    assert_eq!(race.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count(), 1, "of many at once one");
    assert_eq!(store.user(user.id).await.unwrap().unwrap().version, 3, "a code does not make what was read old");

    let found = store.sealed_by_others(SealedIn::TotpSecret, "bbbbbbbb", "", 10).await.unwrap();
    assert_eq!(found, [(user.id.to_string(), "v1.aaaaaaaa.sealed".to_owned())]);
    done(&store, user_change(user.id, 3, UserMove::DropTotp)).await;
    assert!(store.user(user.id).await.unwrap().unwrap().totp.is_none());
    assert_eq!(store.sealed_by_others(SealedIn::TotpSecret, "bbbbbbbb", "", 10).await.unwrap(), []);
}

async fn sessions_begin_are_listed_and_end(ground: Ground) {
    let store = ground.open().await;
    let user = add_user(&store, "owner@shop.example", Role::Owner).await;
    let other = add_user(&store, "viewer@shop.example", Role::Viewer).await;
    let session = |of: &NewUser, n: i64| NewSession {
        id: SessionId::new(at(n), id_bytes()),
        user: of.id,
        version: 1,
        token_hash: format!("hash {} {n}", of.id),
        address: format!("192.0.2.{n}"),
        agent: "a browser".into(),
        created_at: at(n),
        expires_at: at(1_000 + n),
    };
    let sessions: Vec<NewSession> = (1..=4).map(|n| session(&user, n)).collect();
    for new in sessions.iter().chain([&session(&other, 9)]) {
        done(&store, people(vec![PeopleChange::NewSession(new.clone())])).await;
    }
    assert_eq!(store.user(user.id).await.unwrap().unwrap().last_login_at, Some(at(4)));
    // A password that was shown before it was changed lets nobody in.
    refused(&store, people(vec![PeopleChange::NewSession(NewSession { version: 0, ..session(&user, 5) })])).await;
    let found = store.session(&sessions[1].token_hash, at(5)).await.unwrap().unwrap();
    assert_eq!((found.id, found.user, found.address, found.agent), (sessions[1].id, user.id, "192.0.2.2".into(), "a browser".into()));
    assert_eq!((found.created_at, found.seen_at, found.expires_at), (at(2), at(2), at(1_002)));
    assert!(store.session(&sessions[1].token_hash, at(1_002)).await.unwrap().is_none(), "its time is over");
    assert!(store.session("another hash", at(5)).await.unwrap().is_none());
    store.session_seen(sessions[1].id, at(7)).await.unwrap();
    store.session_seen(sessions[1].id, at(6)).await.unwrap();
    assert_eq!(store.session(&sessions[1].token_hash, at(8)).await.unwrap().unwrap().seen_at, at(7));

    let listed = async |now, before: Option<String>| {
        let rows = store.sessions(user.id, now, before, 10).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| sessions[n].id);
    assert_eq!(listed(at(5), None).await, [d, c, b, a]);
    assert_eq!(listed(at(5), Some(c.to_string())).await, [b, a]);
    assert_eq!(listed(at(1_002), None).await, [d, c]);

    let end = |of: UserId| people(vec![PeopleChange::EndSession { id: b, user: of, at: at(8) }]);
    refused(&store, end(other.id)).await;
    done(&store, end(user.id)).await;
    refused(&store, end(user.id)).await;
    assert!(store.session(&sessions[1].token_hash, at(9)).await.unwrap().is_none());
    done(&store, people(vec![PeopleChange::EndSessions { user: user.id, but: Some(c), at: at(8) }])).await;
    assert_eq!(listed(at(9), None).await, [c]);
    assert!(store.session(&session(&other, 9).token_hash, at(9)).await.unwrap().is_some(), "others are not concerned");

    // Where somebody came in from is known after the session ended, and forgotten later.
    let came = async |id| store.came_from(id).await.unwrap().into_iter().collect::<BTreeSet<_>>();
    assert!(came(user.id).await.contains("192.0.2.2"));
    assert_eq!(came(other.id).await, ["192.0.2.9".to_owned()].into());
    store.forget_old(at(31 * 86_400)).await.unwrap();
    assert!(!came(user.id).await.contains("192.0.2.2"));

    // Nobody comes in who was kept out a moment ago, and nobody stays who is gone.
    done(&store, user_change(other.id, 1, UserMove::Put { role: Role::Viewer, status: UserStatus::Disabled })).await;
    refused(&store, people(vec![PeopleChange::NewSession(session(&other, 10))])).await;
    done(&store, user_change(other.id, 2, UserMove::Remove)).await;
    assert!(store.sessions(other.id, at(9), None, 10).await.unwrap().is_empty());
}

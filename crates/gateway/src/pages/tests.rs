use super::samples::{EVM_ADDRESS, TRON_ADDRESS, all, confirming, handed_in, hostile, late, moved, paid, pending, unchosen, underpaid};
use super::*;

const LANGS: [Lang; 2] = [Lang::En, Lang::Zh];

/// The page without its tags, blanks squeezed: what a person reads.
fn words_of(page: &str) -> String {
    let mut inside = String::new();
    for piece in page.split('<').skip(1) {
        inside.push_str(piece.split_once('>').map_or("", |(_, after)| after));
    }
    inside.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True when the letters of an address can be read or copied anywhere in the page.
fn shows_address(page: &str) -> bool {
    let letters: String = words_of(page).split_whitespace().collect();
    [TRON_ADDRESS, EVM_ADDRESS].iter().any(|address| page.contains(address) || letters.contains(address))
}

#[test]
fn the_address_is_shown_only_while_money_is_awaited() {
    for (name, mut view, shown) in all() {
        if name == "hostile" {
            continue;
        }
        // Even if the HTTP layer forgets to take it away.
        if view.network.is_some() && name != "pay-paused" && view.address.is_none() {
            view.address = Some(TRON_ADDRESS.into());
        }
        for lang in LANGS {
            let page = checkout(&view, lang);
            assert_eq!(shows_address(&page), shown, "{name} {lang:?}");
            assert_eq!(page.contains("class=\"qr\""), shown, "{name} {lang:?} and its code");
        }
    }
}

#[test]
fn each_state_says_what_is_going_on() {
    let table = "
        choose                  Choose a network
        choose-none-available   No network is available at the moment
        choose-failed           Ethereum (ERC-20) is not available right now
        pay                     Send only USDT on TRON (TRC-20)
        pay                     Exactly 12.50 USDT must arrive
        pay                     27:59
        pay-soon                Little time is left
        pay-network-trouble     Our connection to TRON (TRC-20) has a problem
        pay-underpaid           12.30 USDT arrived. Please send 0.20 USDT more
        pay-underpaid           Exactly 0.20 USDT must arrive
        pay-paused              Please do not send anything for this order on TRON (TRC-20)
        handed-foreign          This transaction is not a payment to this order
        handed-waiting          TRON (TRC-20) knows this transaction, and it is not in a block yet
        handed-confirming       This payment is recorded for this order
        handed-late             This payment came after the order had ended
        pay-sandbox             Test mode
        pay-sandbox             Pay after expiry
        choose-sandbox          Choose a network first
        closing                 Time is up. Checking the last blocks
        closing-part            12.30 USDT has arrived so far, 0.20 USDT is missing
        closing-by-chain        Time is up. Checking the last blocks
        closing-unchosen        No network was chosen in time
        confirming              7 of 19 confirmations
        confirming              Confirming · 7 so far
        confirming              You can close this page
        confirming-final        marks it as final
        confirming-reorg        Undone by the network
        confirming-reorg        Failed, no money moved
        pay-open-amount         Send as much as you like, but at least the amount below
        pay-open-amount         At least 1.00 USDT must arrive
        paid                    12.50 USDT has arrived. Thank you!
        paid-over               13.00 USDT has arrived, 0.50 USDT more than asked
        paid-late               It came late, but it was accepted
        paid-manual             The shop has confirmed this payment
        paid-reverted           Your payment is being checked
        expired                 no payment was found
        expired                 What arrives until 2026-03-02 12:30 UTC is still recorded
        expired-part            12.30 USDT of 12.50 USDT arrived in time
        expired-late            12.50 USDT arrived after the time was over
        expired-mixed           12.40 USDT arrived, part of it after the time
        cancelled               This order was cancelled
        cancelled-money         12.50 USDT arrived for this cancelled order";
    let states = all();
    let mut tested = std::collections::BTreeSet::from(["hostile", "pay-one-network", "pay-ethereum-large"]);
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, expected) = line.split_once(char::is_whitespace).unwrap();
        let (name, view, _) = states.iter().find(|(known, ..)| *known == name).unwrap();
        tested.insert(name);
        // The countdown is read a second after the page was made.
        let view = CheckoutView { server_time_ms: view.server_time_ms + 1_000, ..view.clone() };
        let words = words_of(&checkout(&view, Lang::En));
        assert!(words.contains(expected.trim()), "{name}: no {expected:?} in {words}");
    }
    let untested: Vec<_> = states.iter().map(|(name, ..)| name).filter(|name| !tested.contains(*name)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn a_reverted_payment_alarms_nobody_and_asks_for_no_money() {
    let (_, view, _) = all().into_iter().find(|(name, ..)| *name == "paid-reverted").unwrap();
    let words = words_of(&checkout(&view, Lang::En)).to_lowercase();
    assert!(words.contains("do not pay again") && !words.contains("reverted") && !words.contains("thank you"));
}

#[test]
fn no_template_leaves_a_hole_open() {
    for (name, view, _) in all().into_iter().filter(|(name, ..)| *name != "hostile") {
        for lang in LANGS {
            let page = checkout(&view, lang);
            assert!(!page.contains('{') && !page.contains('}'), "{name} {lang:?}: {page}");
            assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"), "{name}");
        }
    }
}

#[test]
fn what_is_copied_is_exact() {
    let page = checkout(&pending(), Lang::En);
    assert!(page.contains("data-copy=\"12.5\"") && page.contains(&format!("data-copy=\"{TRON_ADDRESS}\"")));
    assert!(words_of(&page).contains("12.50 USDT"), "but reads well");

    let page = checkout(&underpaid(), Lang::En);
    assert!(page.contains("data-copy=\"0.2\"") && !page.contains("data-copy=\"12.5\""), "the rest, not the whole");

    let smallest = CheckoutView { amount: "1000000.000001".into(), ..pending() };
    let page = checkout(&smallest, Lang::En);
    assert!(page.contains("data-copy=\"1000000.000001\"") && words_of(&page).contains("1000000.000001 USDT"));
}

#[test]
fn hostile_text_stays_text() {
    for lang in LANGS {
        let page = checkout(&hostile(), lang);
        assert_eq!(page.matches("<script").count(), 1, "our own script only");
        assert!(page.contains("&#60;script&#62;alert(1)"), "it is shown, escaped");
        assert!(!page.contains("javascript:"), "a link that is no web page is left out");
        // The attacker's quote would end an attribute: every quote in the page is ours.
        assert!(!page.contains("\"'>") && !page.contains("'><"), "{page}");
        let error = error_page(lang, ErrorKind::Internal, Some("<img src=x onerror=alert(1)>"));
        assert!(!error.contains("<img") && error.contains("&#60;img"));
    }
}

#[test]
fn pages_keep_to_their_content_security_policy() {
    let mut pages: Vec<(String, String)> = vec![("not found".into(), not_found(Lang::Zh))];
    for (name, view, _) in all().into_iter().filter(|(name, ..)| *name != "hostile") {
        pages.push((name.to_owned(), checkout(&view, Lang::En)));
    }
    for (name, page) in pages {
        assert!(!page.contains("<style") && !page.contains(" style="), "{name} has inline style");
        assert!(!page.contains(" onclick") && !page.contains(" onload") && !page.contains(" onsubmit"), "{name}");
        for script in page.split("<script").skip(1) {
            assert!(script.starts_with(" src=\"/assets/checkout.js?v="), "{name} has an inline script");
        }
        for source in page.split(" src=\"").skip(1) {
            assert!(source.starts_with("/assets/"), "{name} loads from elsewhere");
        }
        assert_eq!(page.matches("<link").count(), page.matches("<link rel=\"stylesheet\" href=\"/assets/").count(), "{name}");
    }
    assert!(!CHECKOUT_CSS.contains("url(") && !CHECKOUT_CSS.contains("@import"));
    assert!(!CHECKOUT_JS.contains("innerHTML =") && !CHECKOUT_JS.contains("eval(") && !CHECKOUT_JS.contains("http://"));
}

#[test]
fn only_web_links_lead_back_to_the_shop() {
    let table = [
        ("https://shop.example/a?b=1", true),
        ("HTTP://shop.example", true),
        ("https://", false),
        ("javascript:alert(1)", false),
        ("data:text/html,x", false),
        ("//shop.example", false),
        ("https://shop.example/ a", false),
        ("", false),
    ];
    for (url, linked) in table {
        let view = CheckoutView { redirect_url: Some(url.into()), ..paid(None) };
        assert_eq!(checkout(&view, Lang::En).contains("Return to the shop"), linked, "{url}");
    }
    let without = CheckoutView { redirect_url: None, ..paid(None) };
    assert!(!checkout(&without, Lang::En).contains("Return to the shop"));
}

#[test]
fn a_wallet_link_needs_a_known_scheme() {
    let link = |uri: &str| checkout(&CheckoutView { payment_uri: Some(uri.into()), ..pending() }, Lang::En).contains("open-wallet");
    assert!(link("ethereum:0xdAC1@1/transfer?address=0x1&uint256=1"));
    assert!(!link(TRON_ADDRESS), "a bare address is no link");
    assert!(!link("javascript:alert(1)"));
    let rest = CheckoutView { payment_uri: Some("ethereum:0xdAC1@1/transfer?uint256=12500000".into()), ..underpaid() };
    assert!(!checkout(&rest, Lang::En).contains("open-wallet"), "a link for the whole amount is no help with the rest");
}

#[test]
fn the_network_can_be_changed_only_where_there_is_a_choice() {
    let page = checkout(&pending(), Lang::En);
    let id = pending().order_id;
    assert!(page.contains(&format!("action=\"/pay/{id}/options?lang=en\"")) && page.contains("value=\"ethereum\""));
    assert!(page.contains("Running behind, not available right now"), "and says why one is shut");
    let one = CheckoutView { options: pending().options.into_iter().take(1).collect(), ..pending() };
    assert!(!checkout(&one, Lang::En).contains("/options"));
    for view in [confirming(), paid(None), CheckoutView { chain_past_expiry: true, ..pending() }] {
        assert!(!checkout(&view, Lang::En).contains("/options"), "{:?}", view.status);
    }
    let choose = checkout(&unchosen(), Lang::Zh);
    assert!(choose.contains("?lang=zh\"") && choose.contains("value=\"tron\""));
}

#[test]
fn a_transaction_can_be_handed_in_where_money_may_have_gone_unseen() {
    let action = format!("action=\"/pay/{}/transaction?lang=en#handin\"", pending().order_id);
    let table = "pay pay-open-amount pay-one-network pay-ethereum-large pay-soon pay-network-trouble pay-underpaid pay-paused pay-sandbox handed-foreign \
        handed-waiting handed-late closing closing-part closing-by-chain expired expired-part expired-late expired-mixed";
    for (name, view, _) in all().into_iter().filter(|(name, ..)| *name != "hostile") {
        let shown = checkout(&view, Lang::En).contains(&action);
        assert_eq!(shown, table.split_whitespace().any(|known| known == name), "{name}");
    }
}

#[test]
fn a_network_is_asked_for_only_where_there_are_two() {
    let one = checkout(&pending(), Lang::En);
    assert!(one.contains("<input type=\"hidden\" name=\"network\" value=\"tron\">") && !one.contains("<select"));
    let picked = |view: &CheckoutView| {
        let page = checkout(view, Lang::En);
        assert!(!page.contains("type=\"hidden\" name=\"network\""));
        let (before, _) = page.split_once(" selected").unwrap();
        before.rsplit("value=").next().unwrap().to_owned()
    };
    assert_eq!(picked(&moved()), "\"ethereum\"", "the one that is paid on now");
    assert_eq!(picked(&handed_in(moved(), Outcome::Unknown)), "\"tron\"", "the one that was picked last");
}

#[test]
fn each_answer_says_what_it_means_and_nothing_that_it_must_not() {
    let table = [
        (Outcome::Confirmed, "it counts", "已计入此订单"),
        (Outcome::Confirming, "still confirming", "等待网络确认"),
        (Outcome::Late, "does not count by itself", "不会自动计入"),
        (Outcome::Waiting, "not in a block yet", "尚未上链"),
        (Outcome::Unread, "read in a moment", "马上会读取"),
        (Outcome::Failed, "moved no money. Please pay again", "请重新付款"),
        (Outcome::FailedOver, "do not pay to this order any more", "不要再为此订单转账"),
        (Outcome::Foreign, "not a payment to this order", "不是为此订单的付款"),
        (Outcome::Unknown, "TRON (TRC-20) does not know this transaction", "TRON (TRC-20) 上没有该笔交易"),
        (Outcome::NotAHash, "not a transaction hash", "不是有效的交易哈希"),
        (Outcome::NoAddress, "no address on that network", "没有收款地址"),
        (Outcome::TooMany, "wait a minute", "一分钟后再试"),
        (Outcome::Unreachable, "TRON (TRC-20) cannot be asked right now", "无法查询 TRON (TRC-20)"),
    ];
    for (outcome, en, zh) in table {
        for (lang, expected) in [(Lang::En, en), (Lang::Zh, zh)] {
            for view in [pending(), late(), confirming()] {
                let page = checkout(&handed_in(view.clone(), outcome), lang);
                assert!(words_of(&page).contains(expected), "{outcome:?}: no {expected:?}");
                assert_eq!(page.matches("id=\"answer\"").count(), 1, "{outcome:?}: told once");
                assert!(!page.contains("id=\"answer\" role=\"note\" hidden"), "{outcome:?}");
            }
            assert_eq!(outcome_text(outcome, "TRON (TRC-20)", lang).matches(['{', '}']).count(), 0);
        }
    }
    // What was typed is there to be mended.
    assert!(checkout(&handed_in(pending(), Outcome::NotAHash), Lang::En).contains("value=\"7c2d4a91b3f05e66"));
    // Without an answer the form is shut, and there is a place for one.
    let quiet = checkout(&pending(), Lang::En);
    assert!(quiet.contains("id=\"answer\" role=\"note\" hidden") && quiet.contains("id=\"handin\">"));
}

#[test]
fn a_page_that_a_form_answered_leads_back_to_the_page_itself() {
    let page = checkout(&handed_in(pending(), Outcome::Unknown), Lang::Zh);
    // Loading the form's own address again would be answered with 405.
    assert!(page.contains(&format!("content=\"15; url=/pay/{}?lang=zh\"", pending().order_id)));
}

#[test]
fn only_what_may_change_by_itself_refreshes_without_script() {
    let refreshes = |view: &CheckoutView| checkout(view, Lang::En).contains("<noscript><meta http-equiv=\"refresh\"");
    assert!(refreshes(&pending()) && refreshes(&confirming()));
    assert!(!refreshes(&paid(None)));
    assert!(error_page(Lang::En, ErrorKind::Unavailable, None).contains("http-equiv=\"refresh\""));
    assert!(!not_found(Lang::En).contains("http-equiv=\"refresh\""));
}

#[test]
fn the_page_is_a_frame_around_the_fragment() {
    for (name, view, _) in all() {
        let fragment = checkout_fragment(&view, Lang::Zh);
        assert!(checkout(&view, Lang::Zh).contains(&fragment), "{name}");
        assert!(fragment.starts_with("<div id=\"order\"") && !fragment.contains("<html"), "{name}");
        assert_eq!(fragment.matches("<div").count(), fragment.matches("</div>").count(), "{name}");
    }
    let fragment = checkout_fragment(&pending(), Lang::En);
    assert!(fragment.contains("data-server-time=\"2026-03-01T12:02:00.000Z\""));
    assert!(fragment.contains("data-expires-at=\"2026-03-01T12:30:00.000Z\""));
}

#[test]
fn test_mode_is_said_and_real_mode_is_not() {
    let test = CheckoutView { livemode: false, ..pending() };
    assert!(checkout(&test, Lang::Zh).contains("测试模式"));
    assert!(!checkout(&pending(), Lang::Zh).contains("测试模式"));
    assert!(!checkout(&pending(), Lang::Zh).contains("/sandbox"));
}

#[test]
fn the_language_is_the_one_asked_for() {
    let table = [
        (Some("zh"), Some("en"), Lang::Zh),
        (Some("en"), Some("zh-CN"), Lang::En),
        (Some("ZH-hans"), None, Lang::Zh),
        (Some("fr"), Some("zh-CN,zh;q=0.9"), Lang::Zh),
        (None, Some("zh-CN,zh;q=0.9,en;q=0.8"), Lang::Zh),
        (None, Some("en-US,en;q=0.9,zh;q=0.8"), Lang::En),
        (None, Some("zh;q=0.5, en;q=0.7"), Lang::En),
        (None, Some("fr-FR,fr;q=0.9,zh;q=0.3"), Lang::Zh),
        (None, Some("zh;q=0, en;q=0.1"), Lang::En),
        (None, Some("zh;q=0"), Lang::En),
        (None, Some("zh;q=nonsense"), Lang::En),
        (None, Some("de"), Lang::En),
        (None, Some(""), Lang::En),
        (None, None, Lang::En),
    ];
    for (query, header, expected) in table {
        assert_eq!(Lang::choose(query, header), expected, "{query:?} {header:?}");
    }
    assert!(checkout(&pending(), Lang::Zh).contains("<html lang=\"zh-CN\">"));
}

#[test]
fn assets_carry_a_version_that_follows_their_content() {
    assert_ne!(content_version("a"), content_version("b"));
    assert!(js_url().starts_with("/assets/checkout.js?v=") && css_url().starts_with("/assets/checkout.css?v="));
    assert_ne!(js_url().split_once('=').unwrap().1, css_url().split_once('=').unwrap().1);
    let page = checkout(&pending(), Lang::En);
    assert!(page.contains(&js_url()) && page.contains(&css_url()));
}

/// Renders every state in both languages; where `TIDEGATE_PAGES_DIR` names a directory, it writes
/// them there to be looked at.
#[test]
fn every_page_is_whole() {
    let mut pages = Vec::new();
    for lang in LANGS {
        pages.extend(all().into_iter().map(|(name, view, _)| (format!("{name}.{}.html", lang.code()), checkout(&view, lang))));
        pages.push((format!("error-not-found.{}.html", lang.code()), not_found(lang)));
        pages.push((format!("error-unavailable.{}.html", lang.code()), error_page(lang, ErrorKind::Unavailable, Some("0f1e2d3c"))));
    }
    for (name, page) in &pages {
        let page = page.trim().to_ascii_lowercase();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"), "{name} is not a whole page");
        for tag in ["main", "div", "form", "button", "svg", "details", "select"] {
            let (opened, closed) = (page.matches(&format!("<{tag}")).count(), page.matches(&format!("</{tag}>")).count());
            assert_eq!(opened, closed, "{name}: <{tag}> is not closed");
        }
    }
    if let Some(dir) = std::env::var_os("TIDEGATE_PAGES_DIR").map(std::path::PathBuf::from) {
        std::fs::create_dir_all(dir.join("assets")).unwrap();
        for (name, content) in &pages {
            std::fs::write(dir.join(name), content).unwrap();
        }
        std::fs::write(dir.join("assets/checkout.js"), CHECKOUT_JS).unwrap();
        std::fs::write(dir.join("assets/checkout.css"), CHECKOUT_CSS).unwrap();
    }
}

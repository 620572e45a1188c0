//! Every sentence that a payer can read, in English and in Chinese, side by side.
//!
//! A key cannot exist in one language only: the table makes both. `{names}` in braces are holes
//! that [`fill`] closes; what goes into them is escaped by the template, never here.

use super::Lang;

/// Makes the struct, both languages and a list of all pairs (for the tests) from one table.
macro_rules! texts {
    ($($key:ident: $en:literal, $zh:literal;)+) => {
        /// The sentences of one language.
        pub(super) struct Text {
            $(pub(super) $key: &'static str,)+
        }

        static EN: Text = Text { $($key: $en,)+ };
        static ZH: Text = Text { $($key: $zh,)+ };

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, &str)] = &[$((stringify!($key), $en, $zh),)+];
    };
}

texts! {
    // The frame around every page
    html_lang: "en", "zh-CN";
    other_lang: "zh", "en";
    other_lang_tag: "zh-CN", "en";
    other_lang_name: "中文", "English";
    pay_to: "Pay to {merchant}", "付款给 {merchant}";
    document_title: "{amount} · {merchant}", "{amount} · {merchant}";
    document_title_paid: "Paid · {amount} · {merchant}", "已付款 · {amount} · {merchant}";
    test_mode: "Test mode. Do not send real money.", "测试模式，请勿转入真实资产。";
    offline: "No connection. Trying again; your payment is not affected.", "网络连接中断，正在重试；您的付款不受影响。";
    no_script: "This page refreshes automatically every 15 seconds.", "本页面每 15 秒自动刷新一次。";
    step_pay: "Pay", "付款";
    step_confirm: "Confirm", "确认";
    step_done: "Done", "完成";
    steps: "Progress", "进度";

    // Choosing a network
    choose_title: "Choose a network", "选择转账网络";
    choose_lead: "Pick the network you will send from. Choose the same one in your wallet or exchange.",
        "请选择您要使用的转账网络，须与您钱包或交易所中选择的网络一致。";
    choose_none: "No network is available at the moment. This page keeps trying.",
        "目前没有可用的网络，本页面会自动重试。";
    change_network: "Change", "更换";
    change_network_label: "Change the network", "更换转账网络";
    change_lead: "You can still change the network. If you have already sent {token}, there is no need to: money \
        sent to the earlier address counts too.",
        "您仍可更换网络。如果已经转出 {token}，则无需更换，转到之前地址的款项同样有效。";
    network_current: "Current", "当前";
    network_starting: "Starting, not available yet", "正在启动，暂不可用";
    network_lagging: "Running behind, not available right now", "区块同步延迟，暂不可用";
    network_halted: "Not available right now", "暂不可用";
    network_full: "No free address right now", "暂无可用收款地址";
    network_switch_failed: "{network} is not available right now. Please try again in a moment or choose another network.",
        "{network} 暂时不可用，请稍后再试或选择其他网络。";
    options_closed: "The network can no longer be changed for this order.", "该订单已无法更换网络。";
    network_trouble: "Our connection to {network} has a problem right now. A payment that you have sent is not \
        lost: it will be found as soon as the connection is back.",
        "我们与 {network} 的连接暂时异常。您已转出的款项不会丢失，连接恢复后会自动识别。";
    form_failed: "That did not work. Please try again.", "操作未成功，请重试。";

    // Waiting for the payment
    pay_title: "Send your payment", "请转账付款";
    pay_lead: "Send the exact amount to the address below. This page updates automatically.",
        "请按以下金额转账到收款地址，到账后本页面会自动更新。";
    pay_lead_open: "Send as much as you like, but at least the amount below, to this address. This page updates automatically.",
        "请转账到以下地址，金额由您决定，但不得少于所示金额。到账后本页面会自动更新。";
    underpaid_title: "Part of the payment has arrived", "已收到部分款项";
    underpaid_lead: "{received} arrived. Please send {remaining} more to the same address.",
        "已收到 {received}，还需补付 {remaining}，请转到同一地址。";
    paused_title: "This address is not available", "收款地址暂不可用";
    paused_lead: "Please do not send anything for this order on {network} right now.", "请暂时不要通过 {network} 为此订单转账。";
    paused_more: "If you have already paid, your payment is still being watched. Otherwise choose another network or contact the shop.",
        "如果您已经付款，我们仍会继续跟踪。否则请选择其他网络或联系商家。";
    time_left: "Time left", "剩余时间";
    time_until: "until", "截止";
    soon: "Little time is left. Withdrawals from an exchange may arrive too late.", "剩余时间不多，从交易所提币可能来不及到账。";
    over_now: "The time is over. Please do not send anything to this order any more.", "付款时间已结束，请不要再为此订单转账。";
    amount: "Amount", "付款金额";
    amount_least: "At least", "最低金额";
    amount_rest: "Still to pay", "还需补付";
    amount_total: "Total", "订单金额";
    amount_arrived: "Arrived", "已到账";
    network: "Network", "转账网络";
    address: "Address", "收款地址";
    qr_label: "QR code of the address", "收款地址二维码";
    qr_hint: "Scan with your wallet. The code holds the address only; enter the amount yourself.",
        "请用钱包扫码。二维码只包含地址，金额需自行输入。";
    open_wallet: "Open in wallet", "在钱包中打开";
    copy: "Copy", "复制";
    copied: "Copied", "已复制";
    copy_failed: "Press and hold to copy", "请长按复制";
    copy_amount: "Copy the amount", "复制金额";
    copy_address: "Copy the address", "复制收款地址";
    copy_order: "Copy the order number", "复制订单号";
    copy_hash: "Copy the transaction hash", "复制交易哈希";
    warn_network: "Send only {token} on {network}. Anything else, or on another network, may be lost for good.",
        "仅支持通过 {network} 转入 {token}。转入其他币种或使用其他网络，资产可能永久丢失。";
    warn_least: "At least {amount} must arrive. If your exchange or wallet deducts a fee, add it on top.",
        "实际到账金额不得少于 {amount}。如果交易所或钱包会扣除手续费，请另外加上。";
    warn_fee: "Exactly {amount} must arrive. If your exchange or wallet deducts a fee, add it on top.",
        "实际到账金额必须为 {amount}。如果交易所或钱包会扣除手续费，请另外加上。";
    warn_time: "The payment must be in a block before the time is over. Later money is recorded, but you may have to contact the shop.",
        "转账须在截止时间前上链。超时到账会被记录，但可能需要联系商家处理。";
    waiting: "Waiting for your payment", "等待付款中";

    // The time is over, the chain has not passed it yet
    closing_title: "Time is up. Checking the last blocks", "付款时间已到，正在核对最后的区块";
    closing_lead: "Please do not send anything any more. If you have paid in time, it will show here within minutes.",
        "请不要再转账。如果您已按时付款，几分钟内会在此显示。";
    closing_part: "{recorded} has arrived so far, {remaining} is missing.", "目前已到账 {recorded}，还差 {remaining}。";
    closing_unchosen_title: "Time is up", "付款时间已到";
    closing_unchosen_lead: "No network was chosen in time. Please go back to the shop for a new order.", "未在有效时间内选择网络，请返回商家重新下单。";

    // Confirming
    confirming_title: "Payment noticed", "已检测到付款";
    confirming_lead: "We can see your {received}. The network is confirming it now.", "已检测到您的 {received}，正在等待网络确认。";
    confirming_close: "You can close this page. The shop will be notified automatically.", "您可以关闭此页面，确认完成后会自动通知商家。";
    confirmations: "{done} of {required} confirmations", "已确认 {done} / {required}";
    confirmations_final: "Waiting until the network marks it as final. On some networks this takes 15 minutes or more.",
        "正在等待网络最终确认，部分网络可能需要 15 分钟或更久。";
    confirmations_label: "Confirmations", "确认进度";

    // Paid
    paid_title: "Paid", "付款成功";
    paid_lead: "{received} has arrived. Thank you!", "已收到 {received}，感谢您的付款！";
    paid_close: "The shop is notified automatically. You can close this page.", "系统会自动通知商家，您可以关闭此页面。";
    overpaid_lead: "{received} has arrived, {excess} more than asked.", "已收到 {received}，比订单金额多 {excess}。";
    overpaid_more: "The order is complete, and the shop can see what was paid too much. To get it back, contact \
        the shop and quote the order number.",
        "订单已完成，商家可以看到多付的款项。如需退款，请联系商家并提供订单号。";
    late_lead: "{received} has arrived. It came late, but it was accepted: the order is complete.",
        "已收到 {received}。虽然超过了付款时间，但已被接受，订单已完成。";
    manual_lead: "The shop has confirmed this payment.", "商家已确认此笔付款。";
    reverted_title: "Your payment is being checked", "付款正在核实中";
    reverted_lead: "The network has rearranged its latest blocks, so your payment is being checked once more.",
        "区块链网络刚刚重新整理了最新区块，系统正在再次核实您的付款。";
    reverted_more: "Please do not pay again. This usually resolves without you; if you have questions, contact the \
        shop and quote the order number.",
        "请勿重复付款。通常会自动恢复；如有疑问，请联系商家并提供订单号。";

    // Expired and cancelled
    expired_title: "This order has expired", "订单已过期";
    expired_lead: "The time is over and no payment was found. Please do not send anything to the earlier address.",
        "付款时间已过，未检测到付款。请不要再向之前的地址转账。";
    expired_sent: "Already sent it? What arrives until {time} is still recorded for this order. Contact the shop \
        and quote the order number.",
        "如果您已经转账：在 {time} 之前到账的款项仍会记录到此订单。请联系商家并提供订单号。";
    expired_again: "Still want to buy? Go back to the shop for a new order.", "如仍需购买，请返回商家重新下单。";
    expired_money_title: "Expired, but your money is recorded", "订单已过期，您的款项已记录";
    expired_late_lead: "{recorded} arrived after the time was over. It is recorded for this order and not lost.",
        "{recorded} 在付款时间结束后到账，已记录到此订单，不会丢失。";
    expired_mixed_lead: "{recorded} arrived, part of it after the time was over. It is recorded for this order and not lost.",
        "共到账 {recorded}，其中部分在付款时间结束后到账。款项已记录到此订单，不会丢失。";
    expired_part_lead: "{received} of {amount} arrived in time. It is recorded for this order and not lost.",
        "按时到账 {received}（订单金额 {amount}），已记录到此订单，不会丢失。";
    money_next: "Please contact the shop and quote the order number below. Do not send anything more.",
        "请联系商家并提供下方的订单号，请不要再转账。";
    cancelled_title: "This order was cancelled", "订单已取消";
    cancelled_lead: "Please do not send anything to this order.", "请不要再为此订单转账。";
    cancelled_money_title: "Cancelled, but your money is recorded", "订单已取消，您的款项已记录";
    cancelled_money_lead: "{recorded} arrived for this cancelled order. It is recorded and not lost.", "已取消的订单收到 {recorded}，款项已记录，不会丢失。";

    // Facts below
    transfers: "Transfers", "转账记录";
    transfer_pending: "Confirming", "确认中";
    transfer_pending_count: "{done} so far", "已确认 {done} 次";
    transfer_confirmed: "Confirmed", "已确认";
    transfer_failed: "Failed, no money moved", "交易失败，资金未转移";
    transfer_orphaned: "Undone by the network", "已被网络回滚";
    order_number: "Order number", "订单号";
    details: "Order details", "订单详情";
    created: "Created", "创建时间";
    expires: "Pay until", "付款截止";
    return_to_shop: "Return to the shop", "返回商家";

    // Handing in a transaction
    hand_in_title: "Paid already, and nothing shows here?", "已经付款，但这里没有显示？";
    hand_in_lead: "Enter the transaction hash (TXID) that your wallet or exchange shows for this payment. We look it up on the network.",
        "请输入钱包或交易所为该笔付款显示的交易哈希（TXID），我们会到链上查询。";
    hand_in_label: "Transaction hash (TXID)", "交易哈希（TXID）";
    hand_in_send: "Look it up", "查询";
    handed_confirmed: "This payment has arrived for this order, and it counts.", "该笔付款已到账，并已计入此订单。";
    handed_confirming: "This payment is recorded for this order. The network is still confirming it; there is nothing you need to do.",
        "该笔付款已记录到此订单，正在等待网络确认，您无需任何操作。";
    handed_late: "This payment came after the order had ended. It is recorded and not lost, but it does not count by itself. \
        Please contact the shop and quote the order number.",
        "该笔付款在订单结束后到账，款项已记录，不会丢失，但不会自动计入订单。请联系商家并提供订单号。";
    handed_waiting: "{network} knows this transaction, and it is not in a block yet. If it pays this order, it will show here by itself.",
        "{network} 已收到该笔交易，但尚未上链。如果是为此订单付款，上链后会自动在此显示。";
    handed_unread: "This transaction is in a new block that will be read in a moment. If it pays this order, it will show here by itself.",
        "该笔交易已在新区块中，系统马上会读取。如果是为此订单付款，稍后会自动在此显示。";
    handed_failed: "This transaction failed on the network and moved no money. Please pay again.",
        "该笔交易在链上执行失败，资金未转移，请重新付款。";
    handed_failed_over: "This transaction failed on the network and moved no money. Please do not pay to this order any more; go back to \
        the shop for a new one.",
        "该笔交易在链上执行失败，资金未转移。请不要再为此订单转账，请返回商家重新下单。";
    handed_foreign: "This transaction is not a payment to this order. Please check the hash. If you are sure that you paid with it, \
        contact the shop with the hash and the order number.",
        "该笔交易不是为此订单的付款，请检查交易哈希。如果确认无误，请联系商家并提供交易哈希和订单号。";
    handed_unknown: "{network} does not know this transaction. Please check the hash and the network. A transaction sent just now may take a minute to appear.",
        "{network} 上没有该笔交易，请检查交易哈希和转账网络。刚刚发出的交易可能需要一分钟才能查到。";
    handed_not_a_hash: "This is not a transaction hash. It has 64 digits and letters from a to f; on some networks 0x stands before them.",
        "这不是有效的交易哈希。交易哈希由 64 位数字和字母 a–f 组成，部分网络的前面带有 0x。";
    handed_no_address: "This order has no address on that network.", "该订单在此网络上没有收款地址。";
    handed_too_many: "Too many tries. Please wait a minute, then try again. Your payment is not affected.",
        "查询次数过多，请一分钟后再试，您的付款不受影响。";
    handed_unreachable: "{network} cannot be asked right now. Please try again in a minute. A payment that you have sent is not lost.",
        "目前无法查询 {network}，请一分钟后再试。您已转出的款项不会丢失。";

    // The sandbox
    sandbox_title: "Sandbox", "沙盒";
    sandbox_lead: "Pay on the simulated {network} chain. No real coins are used.", "在模拟的 {network} 链上付款，不使用真实资产。";
    sandbox_choose: "Choose a network first.", "请先选择网络。";
    sandbox_exact: "Pay exactly", "足额付款";
    sandbox_less: "Pay less", "少付";
    sandbox_more: "Pay more", "多付";
    sandbox_late: "Pay after expiry", "过期后付款";

    // Pages without an order
    not_found_title: "We do not know this order", "未找到该订单";
    not_found_lead: "Please check the link, or open it again from the shop. Do not send money to an address you are not sure about.",
        "请检查链接，或从商家页面重新打开。请不要向不确定的地址转账。";
    busy_title: "Too many requests", "请求过于频繁";
    busy_lead: "Please wait a moment and load the page again. Your payment is not affected.", "请稍等片刻再刷新页面，您的付款不受影响。";
    unavailable_title: "Back in a moment", "服务暂时不可用";
    unavailable_lead: "The page is not available right now and will try again in a few seconds. A payment you have sent is not lost.",
        "页面暂时无法打开，稍后会自动重试。您已转出的款项不会丢失。";
    internal_title: "Something went wrong", "出现错误";
    internal_lead: "Please load the page again. A payment you have sent is not lost. If it stays like this, contact the shop.",
        "请刷新页面。您已转出的款项不会丢失。如果问题持续存在，请联系商家。";
    request_id: "Request", "请求编号";
}

/// The sentences of `lang`.
pub(super) fn of(lang: Lang) -> &'static Text {
    match lang {
        Lang::En => &EN,
        Lang::Zh => &ZH,
    }
}

/// `text` with each `{name}` replaced by its value, in one pass: a value that looks like a hole
/// stays as it is. An unknown name stays too, where a test will see it.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let hole = after.split_once('}').and_then(|(name, tail)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((*value, tail))
        });
        match hole {
            Some((value, tail)) => {
                filled.push_str(value);
                rest = tail;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names between braces.
    fn holes(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn every_text_says_something_in_both_languages_with_the_same_holes() {
        assert!(ALL.len() > 80, "the table is there");
        for (key, en, zh) in ALL {
            assert!(!en.trim().is_empty() && !zh.trim().is_empty(), "{key} is empty");
            assert_eq!(holes(en), holes(zh), "{key}");
            assert_eq!(*en, en.trim(), "{key} has loose spaces");
            assert_eq!(*zh, zh.trim(), "{key} has loose spaces");
        }
    }

    #[test]
    fn chinese_is_chinese_and_english_is_english() {
        let is_han = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let neutral = ["html_lang", "other_lang", "other_lang_tag", "other_lang_name", "document_title"];
        for (key, en, zh) in ALL.iter().filter(|(key, ..)| !neutral.contains(key)) {
            assert!(!is_han(en), "{key}: {en}");
            assert!(is_han(zh), "{key}: {zh}");
        }
    }

    #[test]
    fn holes_are_filled_in_one_pass() {
        assert_eq!(fill("{a} and {b}", &[("a", "{b}"), ("b", "2")]), "{b} and 2");
        assert_eq!(fill("{unknown} {", &[("a", "1")]), "{unknown} {");
        assert_eq!(fill("no holes", &[]), "no holes");
    }
}

//! The texts that the program brings, in both languages, for whoever has written no others.
//!
//! A mail has a subject and a text. Telegram gets both in one. An SMS gets the subject alone, and for
//! a customer the address of the checkout page.

use tidegate_rules::notification::{About, Audience, Channel, Language, Topic};

/// Subject and text of a topic on a channel.
#[must_use]
pub fn brought(topic: Topic, channel: Channel, language: Language) -> (String, String) {
    let (subject, first) = match language {
        Language::English => english(topic),
        Language::Chinese => chinese(topic),
    };
    let rest = rest(topic, language);
    let body = if rest.is_empty() { first.to_owned() } else { format!("{first}\n\n{rest}") };
    match (channel, topic.about(), topic.audience()) {
        (Channel::Smtp, ..) => (subject.to_owned(), body),
        (Channel::Telegram, ..) => (String::new(), format!("{subject}\n\n{body}")),
        (Channel::Sms, About::Order, Audience::Customer) => (String::new(), format!("{subject} {{{{checkout_url}}}}")),
        (Channel::Sms, ..) => (String::new(), subject.to_owned()),
    }
}

/// Subject and first paragraph.
const fn english(topic: Topic) -> (&'static str, &'static str) {
    match topic {
        Topic::Pending => ("New order {{reference}}: {{amount}} {{token}}", "A new order waits for its payment."),
        Topic::Underpaid => (
            "Order {{reference}} is underpaid: {{amount_received}} of {{amount}} {{token}}",
            "Money arrived, but {{amount_missing}} {{token}} are still missing.",
        ),
        Topic::Confirming => (
            "Order {{reference}}: {{amount_received}} {{token}} are being confirmed",
            "Enough has arrived. It is not settled yet: deliver nothing before the order is paid.",
        ),
        Topic::Paid => ("Order {{reference}} is paid: {{amount_confirmed}} {{token}}", "The payment has settled on the chain."),
        Topic::Overpaid => (
            "Order {{reference}} is overpaid: {{amount_confirmed}} instead of {{amount}} {{token}}",
            "More than the amount has settled. You may want to return the rest.",
        ),
        Topic::LatePayment => {
            ("Order {{reference}}: a payment came too late", "Money arrived after the order's time. The order says whether it counts.")
        }
        Topic::Expired => (
            "Order {{reference}} has expired: {{amount_received}} of {{amount}} {{token}}",
            "The time for paying has passed without enough money.",
        ),
        Topic::Cancelled => ("Order {{reference}} was cancelled", "The order was cancelled. Money that comes now does not count."),
        Topic::PaymentReverted => (
            "Order {{reference}}: the chain took its payment back",
            "The chain was rewritten, and money of this paid order is gone. Hold what you have not delivered.",
        ),
        Topic::PaymentFailed => {
            ("Order {{reference}}: a payment failed on the chain", "A transaction that was to pay this order failed. No money moved.")
        }
        Topic::Alert => ("[{{severity}}] {{alert_kind}}: {{about}}", "{{detail}}"),
        Topic::Digest => (
            "Tidegate: {{orders_paid}} orders paid, {{amount_paid}} USDT",
            "What happened on {{installation}} from {{period_from}} to {{period_to}}:",
        ),
        Topic::Test => {
            ("Tidegate: this is a test", "This message was sent from {{installation}} at {{at}} to see whether it arrives. It did.")
        }
        Topic::CustomerPending => (
            "Your order {{reference}}: please pay {{amount}} {{token}}",
            "Thank you for your order. Please pay {{amount}} {{token}} before {{expires_at}}.",
        ),
        Topic::CustomerUnderpaid => (
            "Your order {{reference}}: {{amount_missing}} {{token}} are missing",
            "We have received {{amount_received}} of {{amount}} {{token}}. Please pay the missing {{amount_missing}} {{token}} before {{expires_at}}.",
        ),
        Topic::CustomerConfirming => (
            "Your order {{reference}}: your payment was seen",
            "We have seen your payment of {{amount_received}} {{token}}. It is being confirmed by the network.",
        ),
        Topic::CustomerPaid => {
            ("Your order {{reference}} is paid", "Thank you. Your payment of {{amount_confirmed}} {{token}} has arrived.")
        }
        Topic::CustomerOverpaid => (
            "Your order {{reference}}: you paid more than needed",
            "Your order is paid. We have received {{amount_confirmed}} {{token}} instead of {{amount}}. Please write to the shop about the rest.",
        ),
        Topic::CustomerLatePayment => (
            "Your order {{reference}}: your payment came late",
            "Your payment arrived after the time for paying had passed. The page of your order says what became of it; please write to the shop.",
        ),
        Topic::CustomerExpired => (
            "Your order {{reference}} has expired",
            "The time for paying has passed. Please do not pay to its address any more; make a new order instead.",
        ),
        Topic::CustomerCancelled => {
            ("Your order {{reference}} was cancelled", "Your order was cancelled. Please do not pay to its address any more.")
        }
        Topic::CustomerPaymentFailed => (
            "Your order {{reference}}: your payment failed",
            "Your transaction failed on the network, and no money moved. Please try again.",
        ),
    }
}

/// The same in Chinese.
const fn chinese(topic: Topic) -> (&'static str, &'static str) {
    match topic {
        Topic::Pending => ("新订单 {{reference}}：{{amount}} {{token}}", "有一笔新订单等待付款。"),
        Topic::Underpaid => (
            "订单 {{reference}} 付款不足：已收 {{amount_received}}，应收 {{amount}} {{token}}",
            "款项已到，但还差 {{amount_missing}} {{token}}。",
        ),
        Topic::Confirming => {
            ("订单 {{reference}}：{{amount_received}} {{token}} 正在确认", "金额已足，但尚未结算。订单变为已支付之前请勿发货。")
        }
        Topic::Paid => ("订单 {{reference}} 已支付：{{amount_confirmed}} {{token}}", "付款已在链上结算。"),
        Topic::Overpaid => (
            "订单 {{reference}} 多付：实收 {{amount_confirmed}}，应收 {{amount}} {{token}}",
            "结算金额超过订单金额，多出的部分可考虑退还。",
        ),
        Topic::LatePayment => ("订单 {{reference}}：付款迟到", "款项在订单截止时间之后才到。是否计入请查看订单。"),
        Topic::Expired => ("订单 {{reference}} 已过期：已收 {{amount_received}}，应收 {{amount}} {{token}}", "付款时间已过，金额不足。"),
        Topic::Cancelled => ("订单 {{reference}} 已取消", "订单已取消，之后到账的款项不再计入。"),
        Topic::PaymentReverted => ("订单 {{reference}}：付款被链上回滚", "链发生了重组，这笔已支付订单的款项消失了。尚未交付的请先暂停。"),
        Topic::PaymentFailed => ("订单 {{reference}}：链上付款失败", "一笔用于支付此订单的交易失败了，没有资金转移。"),
        Topic::Alert => ("[{{severity}}] {{alert_kind}}：{{about}}", "{{detail}}"),
        Topic::Digest => (
            "Tidegate：已支付 {{orders_paid}} 笔，共 {{amount_paid}} USDT",
            "{{installation}} 从 {{period_from}} 到 {{period_to}} 的情况：",
        ),
        Topic::Test => {
            ("Tidegate：这是一条测试消息", "这条消息于 {{at}} 从 {{installation}} 发出，用来检验能否送达。您看到它，说明已经送达。")
        }
        Topic::CustomerPending => {
            ("您的订单 {{reference}}：请支付 {{amount}} {{token}}", "感谢您的订单。请在 {{expires_at}} 之前支付 {{amount}} {{token}}。")
        }
        Topic::CustomerUnderpaid => (
            "您的订单 {{reference}}：还差 {{amount_missing}} {{token}}",
            "我们已收到 {{amount_received}} {{token}}，应付 {{amount}} {{token}}。请在 {{expires_at}} 之前补足 {{amount_missing}} {{token}}。",
        ),
        Topic::CustomerConfirming => {
            ("您的订单 {{reference}}：已看到您的付款", "我们已看到您支付的 {{amount_received}} {{token}}，正在等待网络确认。")
        }
        Topic::CustomerPaid => ("您的订单 {{reference}} 已支付", "谢谢，您支付的 {{amount_confirmed}} {{token}} 已到账。"),
        Topic::CustomerOverpaid => (
            "您的订单 {{reference}}：支付金额多于应付",
            "您的订单已支付。我们收到 {{amount_confirmed}} {{token}}，应付为 {{amount}}。多出的部分请联系商家。",
        ),
        Topic::CustomerLatePayment => {
            ("您的订单 {{reference}}：付款迟到", "您的付款在截止时间之后才到账。处理结果请查看订单页面，并请联系商家。")
        }
        Topic::CustomerExpired => ("您的订单 {{reference}} 已过期", "付款时间已过。请不要再向该地址付款，如需购买请重新下单。"),
        Topic::CustomerCancelled => ("您的订单 {{reference}} 已取消", "您的订单已取消，请不要再向该地址付款。"),
        Topic::CustomerPaymentFailed => ("您的订单 {{reference}}：付款失败", "您的交易在网络上失败了，没有资金转移。请重试。"),
    }
}

/// What follows the first paragraph.
const fn rest(topic: Topic, language: Language) -> &'static str {
    let is_for_customer = matches!(
        topic,
        Topic::CustomerPending
            | Topic::CustomerUnderpaid
            | Topic::CustomerConfirming
            | Topic::CustomerPaid
            | Topic::CustomerOverpaid
            | Topic::CustomerLatePayment
            | Topic::CustomerExpired
            | Topic::CustomerCancelled
            | Topic::CustomerPaymentFailed
    );
    match (topic.about(), is_for_customer, language) {
        (About::Installation, ..) => "",
        (About::Order, true, Language::English) => "Your order: {{checkout_url}}",
        (About::Order, true, Language::Chinese) => "订单页面：{{checkout_url}}",
        (About::Order, false, Language::English) => {
            "Order: {{order_id}}\nYour number: {{merchant_order_id}}\nUser: {{user_id}}\nAmount: {{amount}} {{token}}\n\
             Received: {{amount_received}} {{token}}\nSettled: {{amount_confirmed}} {{token}}\nNetwork: {{network}}\n\
             Transaction: {{tx_hash}}\nStatus: {{status}}\nAt: {{at}}\n{{checkout_url}}"
        }
        (About::Order, false, Language::Chinese) => {
            "订单：{{order_id}}\n商户单号：{{merchant_order_id}}\n用户：{{user_id}}\n金额：{{amount}} {{token}}\n\
             已收：{{amount_received}} {{token}}\n已结算：{{amount_confirmed}} {{token}}\n网络：{{network}}\n\
             交易：{{tx_hash}}\n状态：{{status}}\n时间：{{at}}\n{{checkout_url}}"
        }
        (About::Alert, _, Language::English) => "Alert: {{alert_id}}\nAt: {{at}}\nOn: {{installation}}",
        (About::Alert, _, Language::Chinese) => "告警：{{alert_id}}\n时间：{{at}}\n系统：{{installation}}",
        (About::Period, _, Language::English) => {
            "Orders created: {{orders_created}}\nOrders paid: {{orders_paid}}, {{amount_paid}} USDT\nUnderpaid: {{orders_underpaid}}\n\
             Overpaid: {{orders_overpaid}}\nExpired: {{orders_expired}}\nCancelled: {{orders_cancelled}}\nLate payments: {{late_payments}}\n\
             Failed payments: {{payments_failed}}\nReverted payments: {{payments_reverted}}\nOpen alerts: {{alerts_open}}"
        }
        (About::Period, _, Language::Chinese) => {
            "新建订单：{{orders_created}}\n已支付：{{orders_paid}} 笔，{{amount_paid}} USDT\n付款不足：{{orders_underpaid}}\n\
             多付：{{orders_overpaid}}\n过期：{{orders_expired}}\n取消：{{orders_cancelled}}\n迟到付款：{{late_payments}}\n\
             失败付款：{{payments_failed}}\n被回滚付款：{{payments_reverted}}\n未处理告警：{{alerts_open}}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notices::template::Template;

    #[test]
    fn every_text_that_is_brought_is_one_that_may_be_written() {
        for topic in Topic::ALL {
            for channel in Channel::ALL {
                for language in Language::ALL {
                    let (subject, body) = brought(*topic, *channel, *language);
                    let what = format!("{} {} {}", topic.name(), channel.name(), language.name());
                    Template::parse(*topic, *channel, &subject, &body).unwrap_or_else(|wrong| panic!("{what}: {wrong:?}"));
                }
            }
        }
    }

    #[test]
    fn the_languages_say_it_with_the_same_values() {
        let names = |text: &str| {
            let names: std::collections::BTreeSet<String> =
                text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::to_owned).collect();
            names
        };
        for topic in Topic::ALL {
            let [english, chinese] = [Language::English, Language::Chinese].map(|language| {
                let (subject, body) = brought(*topic, Channel::Smtp, language);
                (names(&subject), names(&body))
            });
            assert_eq!(english, chinese, "{}", topic.name());
        }
    }
}

-- What happens between two runs: one user in a hundred changes, and some orders and page views
-- are new. Each row that moves again carries the time of the change.

UPDATE app.users
SET plan = 'premium', balance = balance + 10, last_updated = CURRENT_TIMESTAMP()
WHERE MOD(id, 100) = 1;

INSERT INTO app.events (id, event_name, order_id, products, total_price, comment, timestamp)
SELECT
  id, 'Order Shipped', order_id, products, total_price, CAST(NULL AS STRING), CURRENT_TIMESTAMP()
FROM app.events
WHERE MOD(id, 100) = 1 AND event_name = 'Order Completed';

INSERT INTO app.pages (id, metatitle, url, time_on_page, timestamp)
SELECT id, 'Order status', 'https://example.com/orders', 12.5, CURRENT_TIMESTAMP()
FROM app.users
WHERE MOD(id, 100) = 1;

// The page: one store, one thing that keeps it up to date, and views that show it.

import { showAbout } from "./about.js";
import { showBlocks } from "./blocks.js";
import { showCharts } from "./charts.js";
import { showConnection } from "./connection.js";
import { tableRoles } from "./dom.js";
import { showLate } from "./late.js";
import { showLatency } from "./latency.js";
import { Live } from "./live.js";
import { showOverview } from "./overview.js";
import { showPeers } from "./peers.js";
import { Store } from "./store.js";
import { showTraffic } from "./traffic.js";
import { showWarnings } from "./warnings.js";

const store = new Store();
const live = new Live(store);
showConnection(store, () => live.retry());
showLate(store);
showOverview(store);
showWarnings(store);
showCharts(store);
showBlocks(store);
showLatency(store);
showPeers(store);
showTraffic(store);
showAbout(store);
for (const table of document.querySelectorAll(".stack")) tableRoles(table);
live.start();

/**
 * The example page in a headless Chromium. Told by JSON in its first argument: `page`, and `fields` of its form. It
 * fills them in, and prints the page's text whenever that has changed. On standard input it takes the orders `reload`,
 * on which it loads the page anew, and `offline` and `online`, on which the browser's network goes and comes. Origins count
 * for it as for anybody's browser. What the browser itself says of the page goes to standard error. It ends with its
 * standard input. The browser is unpacked once, into CHROMIUM_HOME; its profile is in the folder for temporary files.
 */

import { existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import chromium from "@sparticuz/chromium";
import { chromium as browsers, type Browser, type Page } from "playwright-core";

interface Options {
  readonly page: string;
  readonly fields: Readonly<Record<string, string>>;
}

const { page: address, fields }: Options = JSON.parse(process.argv[2]!);
const say = (line: object): void => console.log(JSON.stringify(line));

async function started(): Promise<Browser> {
  try {
    const executablePath = await unpacked();
    const args = chromium.args.filter((one) => one !== "--disable-web-security");
    return await browsers.launch({ executablePath, args: [...args, "--no-proxy-server"], headless: true });
  } catch (error) {
    say({ kind: "absent", message: String(error).split("\n")[0] });
    process.exit();
  }
}

// The package unpacks into the folder for temporary files, and takes what it finds there for whole. So it gets an empty
// folder, which has its name once all is in it.
async function unpacked(): Promise<string> {
  const { CHROMIUM_HOME: home, TMPDIR: before } = process.env;
  if (home === undefined || before === undefined) throw new Error("CHROMIUM_HOME and TMPDIR must be set");
  if (!existsSync(home)) {
    const staging = mkdtempSync(`${home}-`);
    process.env["TMPDIR"] = staging;
    try {
      await chromium.executablePath();
      renameSync(staging, home);
    } catch (error) {
      rmSync(staging, { recursive: true, force: true });
      if (!existsSync(home)) throw error; // else another program was quicker
    } finally {
      process.env["TMPDIR"] = before;
    }
  }
  return join(home, "chromium");
}

async function follow(page: Page): Promise<void> {
  await page.goto(address);
  for (const [name, value] of Object.entries(fields)) await page.fill(`[name=${name}]`, value);
  await page.click("button");
}

const browser = await started();
const context = await browser.newContext();
const page = await context.newPage();
page.on("pageerror", (error) => say({ kind: "defect", message: String(error) }));
page.on("console", (message) => console.error(`${message.type()}: ${message.text()}`));
page.on("requestfailed", (request) => console.error(`failed: ${request.url()}: ${request.failure()?.errorText}`));
page.on("framenavigated", (frame) => console.error(`at: ${frame.url().split("?")[0]}`));
const orders = createInterface({ input: process.stdin });
orders.on("close", () => void browser.close().finally(() => process.exit()));
orders.on("line", (order) => {
  void (order === "reload" ? follow(page) : context.setOffline(order === "offline")).then(() =>
    say({ kind: "done", order }),
  );
});
await page.exposeFunction("changed", (text: string, finished: boolean) => say({ kind: "text", text, finished }));
await page.addInitScript(() => {
  const { changed } = globalThis as unknown as { changed: (text: string, finished: boolean) => void };
  addEventListener("DOMContentLoaded", () => {
    const output = document.getElementById("output")!;
    const tell = (): void => changed(output.textContent ?? "", output.dataset["finished"] === "yes");
    new MutationObserver(tell).observe(output, {
      attributes: true,
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
});
// First: who waits for it does not pass over what the page shows.
say({ kind: "open", version: browser.version() });
await follow(page);

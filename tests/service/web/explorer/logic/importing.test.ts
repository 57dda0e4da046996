import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { type Found, nameOf, sortOut, suffixOf } from "../../../../../service/web/explorer/src/importing/folder";
import { type Bounds, type Clock, IN_FLIGHT, Importer, type Loaded, type Picture, type Target } from "../../../../../service/web/explorer/src/importing/importer";
import type { Failure } from "../../../../../service/web/explorer/src/item-failure";
import { Pace } from "../../../../../service/web/explorer/src/importing/pace";
import { words } from "../../../../../service/web/explorer/src/measures";
import { sha1 } from "../../../../../service/web/explorer/src/importing/uuid5";

const BOUNDS: Bounds = { maxObjects: 10, targetBytes: 400, maxBytes: 4000 };

const failure = (given: Partial<Failure>): Failure => ({ code: "unavailable", reason: "", message: "down", retryDelayMs: undefined, ...given });

/** Pictures of 30 bytes, 40 in base64; a file is its name. */
function pictures(count: number, size = 30): Picture<string>[] {
  return Array.from({ length: count }, (_, at) => ({ id: `id-${at}`, path: `${at}.png`, file: `${at}.png`, size }));
}

/** Time that passes while somebody waits for it. */
class Waits implements Clock {
  readonly all: number[] = [];
  private time = 0;
  now(): number {
    return this.time;
  }
  async sleep(ms: number): Promise<void> {
    this.all.push(ms);
    const end = this.time + ms;
    // Longer than a call takes.
    for (let turn = 0; turn < 3; turn++) await new Promise((done) => setImmediate(done));
    this.time = Math.max(this.time, end);
  }
}

/** A server in memory. */
class Server implements Target<string> {
  readonly kept = new Map<string, number>();
  readonly calls: string[][] = [];
  readonly asked: number[] = [];
  /** What the next calls throw. */
  readonly throwing: Failure[] = [];
  refuse: (picture: Picture<string>) => Failure | null = () => null;
  onSend: () => void = () => undefined;
  mostInFlight = 0;
  /** How many contents were read and not answered for yet, at the most. */
  mostHeld = 0;
  private inFlight = 0;
  private held = 0;

  async stored(ids: readonly string[]): Promise<ReadonlySet<string>> {
    this.asked.push(ids.length);
    return new Set(ids.filter((id) => this.kept.has(id)));
  }

  async read(file: string): Promise<string> {
    if (file === "gone.png") throw new Error("it was moved");
    this.mostHeld = Math.max(this.mostHeld, ++this.held);
    return file;
  }

  async send(loaded: readonly Loaded<string>[], signal: AbortSignal): Promise<(Failure | null)[]> {
    this.calls.push(loaded.map(({ picture }) => picture.path));
    this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight);
    this.onSend();
    await new Promise((done) => setImmediate(done));
    this.inFlight--;
    this.held -= loaded.length;
    if (signal.aborted) throw failure({ code: "canceled" });
    const thrown = this.throwing.shift();
    if (thrown) throw thrown;
    return loaded.map(({ picture, content }) => {
      assert.equal(content, picture.file);
      const refused = this.refuse(picture);
      if (refused === null) this.kept.set(picture.id, (this.kept.get(picture.id) ?? 0) + 1);
      return refused;
    });
  }
}

const once = (server: Server, count: number) =>
  assert.deepEqual([...server.kept.entries()].sort(), pictures(count).map(({ id }) => [id, 1] as [string, number]).sort());

test("SHA-1 is the standard's, for every length around a block", () => {
  for (let length = 0; length < 200; length++) {
    const content = Uint8Array.from({ length }, (_, at) => (at * 37 + length) % 256);
    assert.equal(Buffer.from(sha1(content)).toString("hex"), createHash("sha1").update(content).digest("hex"));
  }
});

test("endings are those of names, not of folders, and dots in front are none", () => {
  assert.deepEqual(["a.JPG", "b.c/d", ".png", "x/..a.tar.gif", "e."].map(suffixOf), [".jpg", "", "", ".gif", "."]);
  assert.deepEqual(["x/a.b.png", "noend", "x/.png"].map(nameOf), ["a.b", "noend", ".png"]);
});

test("files that are no pictures are listed by their endings, and one path in two spellings is refused", () => {
  const files: Found<{ name: string; size: number }>[] = ["b.txt", "cafe\u0301.png", "caf\u00e9.png", "x.svg", "y.svg", "a.jpg"].map((path) => ({
    path,
    file: { name: path, size: 5 },
  }));

  const folder = sortOut(files, [{ path: "shut", reason: "it cannot be read" }]);

  assert.deepEqual(folder.pictures.map(({ path }) => path), ["a.jpg", "caf\u00e9.png"]);
  assert.deepEqual(folder.refused.map(({ path }) => path), ["shut", "caf\u00e9.png"]);
  assert.deepEqual([...folder.ignored], [
    [".txt", ["b.txt"]],
    [".svg", ["x.svg", "y.svg"]],
  ]);
  assert.equal(folder.bytes, 10);
});

test("every picture is stored once, in calls of bounded size, a few at the same time", async () => {
  const server = new Server();
  const importer = new Importer(pictures(95), server, BOUNDS, true, new Waits());

  await importer.start();

  once(server, 95);
  assert.equal(server.mostInFlight, IN_FLIGHT);
  assert.ok(server.calls.every((call) => call.length <= 10));
  assert.equal(importer.progress.phase, "done");
  assert.equal(importer.progress.stored, 95);
});

test("files are read when their turn comes, so thousands of them take no more memory than a few", async () => {
  const server = new Server();
  const importer = new Importer(pictures(5000), server, BOUNDS, true, new Waits());

  await importer.start();

  once(server, 5000);
  assert.ok(server.mostHeld <= IN_FLIGHT * 10, `${server.mostHeld}`);
});

test("what is stored is passed over, and asked for in few calls", async () => {
  const server = new Server();
  for (let at = 0; at < 450; at += 2) server.kept.set(`id-${at}`, 1);
  const importer = new Importer(pictures(450), server, BOUNDS, true, new Waits());

  await importer.start();

  once(server, 450);
  assert.deepEqual(server.asked, [200, 200, 50]);
  assert.equal(importer.progress.skipped, 225);
});

test("a picture fails alone with its reason, and can be tried again", async () => {
  const server = new Server();
  const broken = failure({ code: "invalid_argument", reason: "IMAGE_UNDECODABLE", message: "no picture" });
  server.refuse = ({ path }) => (path === "3.png" ? broken : null);
  const importer = new Importer(pictures(20), server, BOUNDS, true, new Waits());
  await importer.start();
  assert.deepEqual([...importer.failures], [[3, broken]]);
  server.refuse = () => null;

  importer.retryFailed();
  await importer.start();

  once(server, 20);
  assert.equal(importer.progress.failed, 0);
});

test("empty, unreadable and too large files fail without being sent", async () => {
  const server = new Server();
  const files = [{ size: 0 }, { file: "gone.png" }, { size: 3001 }].map((given, at) => ({ ...pictures(4)[at]!, ...given }));
  const importer = new Importer([...files, pictures(4)[3]!], server, BOUNDS, true, new Waits());

  await importer.start();

  assert.deepEqual(server.calls, [["3.png"]]);
  assert.match(importer.failures.get(0)!.message, /empty/);
  assert.match(importer.failures.get(1)!.message, /cannot be read: it was moved/);
  assert.match(importer.failures.get(2)!.message, /3001 bytes.*at most 3000/);
});

test("while the server is down the import waits longer and longer, and then ends with each picture once", async () => {
  const server = new Server();
  const clock = new Waits();
  server.throwing.push(...Array.from({ length: 12 }, () => failure({})));
  const importer = new Importer(pictures(60), server, BOUNDS, true, clock);

  await importer.start();

  once(server, 60);
  assert.deepEqual([...new Set(clock.all)], [500, 1000, 2000, 4000]);
  assert.equal(importer.progress.trouble, null);
});

test("the wait is as long as the server asks for", async () => {
  const server = new Server();
  const clock = new Waits();
  server.throwing.push(failure({ code: "resource_exhausted", reason: "QUOTA_EXCEEDED", retryDelayMs: 7000 }));
  const importer = new Importer(pictures(5), server, BOUNDS, true, clock);

  await importer.start();

  once(server, 5);
  assert.ok(clock.all.includes(7000));
});

test("pictures that fail for a passing reason go again alone, and not for ever", async () => {
  const server = new Server();
  let times = 0;
  const busy = failure({ reason: "OVERLOADED", retryDelayMs: 10 });
  server.refuse = ({ path }) => (path === "2.png" && times++ < 3 ? busy : path === "4.png" ? busy : null);
  const importer = new Importer(pictures(9), server, BOUNDS, true, new Waits());

  await importer.start();

  assert.equal(server.kept.get("id-2"), 1);
  assert.deepEqual([...importer.failures], [[4, busy]]);
  assert.equal(server.calls.filter((call) => call.includes("0.png")).length, 1);
});

test("a reason that does not pass stops the import, which goes on later", async () => {
  const server = new Server();
  server.throwing.push(failure({ code: "permission_denied", message: "not yours" }));
  const importer = new Importer(pictures(60), server, BOUNDS, true, new Waits());

  await importer.start();

  assert.equal(importer.progress.phase, "stopped");
  assert.equal(importer.progress.trouble?.message, "not yours");
  await importer.start();
  assert.equal(server.kept.size, 60);
  assert.equal(importer.progress.left, 0);
  assert.equal(importer.progress.phase, "done");
});

test("a stopped import keeps its place", async () => {
  const server = new Server();
  const importer = new Importer(pictures(200), server, BOUNDS, true, new Waits());
  server.onSend = () => void (server.calls.length === 7 && importer.stop());

  await importer.start();

  const { phase, stored } = importer.progress;
  assert.equal(phase, "stopped");
  assert.ok(stored > 0 && stored < 200);
  await importer.start();
  assert.equal(importer.progress.stored, 200);
  assert.equal(server.kept.size, 200);
});

test("a call that is too large is halved, and a picture that is too large alone fails", async () => {
  const server = new Server();
  const tooLarge = failure({ code: "resource_exhausted", reason: "MESSAGE_TOO_LARGE" });
  const send = server.send.bind(server);
  server.send = async (loaded, signal) => {
    if (loaded.length > 3 || loaded.some(({ picture }) => picture.path === "8.png")) throw tooLarge;
    return send(loaded, signal);
  };
  const importer = new Importer(pictures(30), server, BOUNDS, true, new Waits());

  await importer.start();

  assert.deepEqual([...importer.failures], [[8, tooLarge]]);
  assert.equal(server.kept.size, 29);
});

test("an answer with another number of results stores nothing by guess", async () => {
  const server = new Server();
  server.send = async () => [];
  const importer = new Importer(pictures(3), server, BOUNDS, true, new Waits());

  await importer.start();

  assert.equal(importer.progress.phase, "stopped");
  assert.match(importer.progress.trouble!.message, /0 results for 3 pictures/);
  assert.equal(importer.progress.left, 3);
});

test("the rate is that of the last half minute", () => {
  const pace = new Pace();
  pace.reset(0, 100);
  assert.equal(pace.perSecond, 0);

  for (let second = 1; second <= 100; second++) pace.add(second * 1000, 100 + second * (second <= 60 ? 100 : 5));

  assert.ok(Math.abs(pace.perSecond - 5) < 0.5, `${pace.perSecond}`);
  assert.deepEqual([7.4, 200, 7500, 90_000].map(words.span), ["7 s", "3 min 20 s", "2 h 5 min", "1 d 1 h"]);
});

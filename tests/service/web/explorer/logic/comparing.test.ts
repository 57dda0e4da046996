import assert from "node:assert/strict";
import { test } from "node:test";

import { agreement, best, columnOf, cosine, cosines, rangeOf, ranks } from "../../../../../service/web/explorer/src/comparing/cosines";
import { embedAll, groups, type Item, type Outcome, Vectors } from "../../../../../service/web/explorer/src/comparing/embed";
import { colourOf } from "../../../../../service/web/explorer/src/comparing/scale";

const text = (key: string, bytes = 1): Item => ({ key, kind: "text", bytes });
const embedded = (values: number[]) => ({
  embedding: { vector: { data: Buffer.from(new Float32Array(values).buffer).toString("base64") } },
});

test("a cosine does not depend on lengths", () => {
  assert.ok(Math.abs(cosine(Float32Array.of(3, 0), Float32Array.of(1, 1)) - Math.SQRT1_2) < 1e-7);
});

test("what has no vector has no cosine, and does not count", () => {
  const matrix = cosines([Float32Array.of(1, 0), null], [null, Float32Array.of(0, 1), Float32Array.of(1, 0)]);

  assert.deepEqual(matrix, [
    [null, 0, 1],
    [null, null, null],
  ]);
  assert.deepEqual(rangeOf(matrix), { least: 0, largest: 1 });
  assert.equal(best(matrix[0]!), 2);
  assert.equal(best(columnOf(matrix, 0)), -1);
  assert.equal(rangeOf([[null]]), null);
});

test("equal values share a rank", () => {
  assert.deepEqual(ranks([0.3, 0.1, 0.3, 0.2]), [3.5, 1, 3.5, 2]);
});

test("two orders agree from 1 to -1, over what both have", () => {
  assert.deepEqual(agreement([0.1, 0.2, 0.3], [1, 2, 3]), { correlation: 1, sameBest: true });
  assert.deepEqual(agreement([0.1, 0.2, 0.3], [3, 2, 1]), { correlation: -1, sameBest: false });
  assert.deepEqual(agreement([0.1, 0.2, null, 0.4], [1, 2, 9, null]), { correlation: 1, sameBest: true });
  assert.deepEqual(agreement([null], [1]), { correlation: null, sameBest: null });
});

test("calls take no more inputs and bytes than they may, and one input may be larger", () => {
  const items = [text("a", 4), text("b", 4), text("c", 9), text("d", 1), text("e", 1), text("f", 1)];

  const made = groups(items, { maxInputs: 2, maxBytes: 8 }).map((group) => group.map((item) => item.key));

  assert.deepEqual(made, [["a", "b"], ["c"], ["d", "e"], ["f"]]);
});

test("what is known is not sent again, a failure is, and one content is sent once", async () => {
  const sent: string[][] = [];
  const told = new Map<string, Outcome>();
  const vectors = new Vectors(10);
  const embed = (items: Item[], place: string) =>
    embedAll(
      items,
      place,
      vectors,
      { maxInputs: 9, maxBytes: 99 },
      async (group) => {
        sent.push(group.map((item) => item.key));
        return group.map((item) => (item.key === "bad" ? { error: { message: "no picture" } } : embedded([1, 2])));
      },
      (key, outcome) => told.set(key, outcome),
    );

  await embed([text("a"), text("bad"), text("a")], "one");
  await embed([text("a"), text("bad"), text("b")], "one");
  await embed([text("a")], "another");

  assert.deepEqual(sent, [["a", "bad"], ["bad", "b"], ["a"]]);
  assert.deepEqual(told.get("bad"), { failure: "no picture" });
  assert.deepEqual(told.get("a"), { vector: Float32Array.of(1, 2) });
});

test("only so many vectors are kept, the newest ones", () => {
  const vectors = new Vectors(2);

  for (const key of ["a", "b", "c"]) vectors.set("place", text(key), Float32Array.of(1));

  assert.equal(vectors.get("place", text("a")), undefined);
  assert.ok(vectors.get("place", text("c")));
});

test("numbers can be read on every colour of the scale", () => {
  const light = (channels: number[]) => {
    const [red, green, blue] = channels.map((value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  let last = -1;
  for (let share = 0; share <= 1; share += 0.01) {
    const { background, text: ink } = colourOf(share);
    const lightness = light(background.match(/\d+/g)!.map(Number));
    const contrast = ink === "#000" ? (lightness + 0.05) / 0.05 : 1.05 / (lightness + 0.05);
    assert.ok(contrast >= 4.5, `${background} with ${ink}: ${contrast}`);
    assert.ok(lightness >= last - 0.002, `${background} is darker than the one before`);
    last = lightness;
  }
});

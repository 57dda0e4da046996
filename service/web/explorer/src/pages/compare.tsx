/** A page to come. */
export function ComparePage({ params: _ }: { params: URLSearchParams }) {
  return (
    <>
      <h1>Compare</h1>
      <p class="quiet">Comparing is not here yet.</p>
    </>
  );
}

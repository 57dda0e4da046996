/** A page to come. */
export function CollectionsPage({ params: _ }: { params: URLSearchParams }) {
  return (
    <>
      <h1>Collections</h1>
      <p class="quiet">The list of collections is not here yet.</p>
    </>
  );
}
